"""Compiled with numba: plain lines of a block of text become rows in COPY's binary format.

What a line must be like to pass is what `Column.plain` says as a pattern; `block_door` writes the columns down as
arrays, gives every other line to the slow way and puts pseudonyms in place. Importing this module is slow and compiles
nothing; the first call does (seconds), and keeps the result on disk. All compiled functions stand in this one file: a
change in another would not be noticed by numba's cache.
"""

import os
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import njit
from numpy.typing import NDArray

from warehouse.settings import home

# numba keeps what it has compiled beside this file; where that may not be, under the home
if not os.access(Path(__file__).parent, os.W_OK):
    numba.config.CACHE_DIR = str(home() / "compiled")

MOMENT, CHOICE, WHOLE_NUMBER, DECIMAL, UUID, TEXT = range(6)
LONGEST_TEXT = 255
# of a number on either side of its point
MOST_DIGITS = 18
# base-10000 digits of either side
MOST_GROUPS = 5
# of a row, behind the columns of the file: the line number, and three that are appended
FIELDS_AFTER = 4
# columns of the array of rows: the delivered id, where in the output it belongs, line number, day of the month, end
ROW_FIELDS = 5
PERSON_ID, PERSON_AT, LINE_NUMBER, DAY, ROW_END = range(ROW_FIELDS)
# columns of the array of odd lines
ODD_FIELDS = 3
ODD_NUMBER, ODD_START, ODD_END = range(ODD_FIELDS)
# keys of the table of people; ids in plain lines are never negative, so ~id is free to mean "asked to be forgotten"
NOBODY = -(2**63)

_LINE_FEED, _RETURN, _BLANK, _COMMA, _MINUS, _POINT, _COLON = 10, 13, 32, 44, 45, 46, 58
_ZERO, _NINE = 48, 57
_MICROSECONDS = 1_000_000
_NUMERIC_NEGATIVE = 0x4000
_IS_TEXT = np.array([32 <= byte < 127 and chr(byte) not in '"%,;@|' for byte in range(256)])
_NIBBLES = np.array(["0123456789abcdef".find(chr(byte)) for byte in range(256)], dtype=np.int64)

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


@njit(cache=True, nogil=True)
def parse(
    text: Bytes,
    start: int,
    first_number: int,
    kinds: Integers,
    may_be_empty: NDArray[np.bool_],
    person: int,
    time: int,
    month: Bytes,
    first_day: int,
    last_day: int,
    day_zero_us: int,
    words: Bytes,
    word_ends: Integers,
    first_words: Integers,
    appended: Bytes,
    longest_row: int,
    out: Bytes,
    rows: Integers,
    odd: Integers,
) -> tuple[int, int, int, int, int]:
    """Parse lines of `text` from `start` on, which has the physical number `first_number`, until an array is full.

    Args:
        text: whole lines, each with its line feed.
        kinds, may_be_empty: one entry per column, in the order of the file.
        person, time: which column holds the person's id, and which the time the rows are counted by.
        month, first_day, last_day, day_zero_us: "2019-10-", the days that may follow, and the microseconds from
            2000-01-01 to the day before its first.
        words, word_ends, first_words: all words of all choices, joined; where each ends; and per column the first that
            is its own (one entry more than columns).
        appended: the three fields that end every row, after its line number.
        longest_row: bytes a row can take at most.
        out, rows, odd: to be filled: the rows, what is to be known of each, and where lines stand that are not plain.

    Returns:
        The position and number of the first line not looked at, bytes of `out`, entries of `rows` and of `odd` filled.
    """
    at, number, end, row_count, odd_count = start, first_number, 0, 0, 0
    column_count = kinds.size
    while at < text.size and row_count < rows.shape[0] and odd_count < odd.shape[0] and end + longest_row <= out.size:
        # the next byte of the line, the next of the row; -1 once the line is not plain
        p, o = at, _put(out, end, column_count + FIELDS_AFTER, 2)
        for column in range(column_count):
            length_at = o
            kind = kinds[column]
            o += 4
            if kind == WHOLE_NUMBER:
                p, o, value = _whole_number(text, p, out, o, may_be_empty[column])
                if column == person:
                    rows[row_count, PERSON_ID] = value
                    rows[row_count, PERSON_AT] = length_at + 4
            elif kind == TEXT:
                p, o = _text(text, p, out, o)
            elif kind == MOMENT:
                p, o, day = _moment(text, p, out, o, month, first_day, last_day, day_zero_us)
                if column == time:
                    rows[row_count, DAY] = day
            elif kind == CHOICE:
                p, o = _choice(text, p, out, o, words, word_ends, first_words[column], first_words[column + 1])
            elif kind == DECIMAL:
                p, o = _decimal(text, p, out, o)
            else:
                p, o = _uuid(text, p, out, o, may_be_empty[column])
            if p < 0:
                break
            length = o - length_at - 4
            # an empty field is missing: its length is -1
            _put(out, length_at, length if length else -1, 4)
            if column + 1 < column_count:
                if text[p] != _COMMA:
                    p = -1
                    break
                p += 1
        if p >= 0 and text[p] == _RETURN:
            p += 1
        if p >= 0 and text[p] == _LINE_FEED:
            o = _put(out, _put(out, o, 8, 4), number, 8)
            for i in range(appended.size):
                out[o + i] = appended[i]
            end = o + appended.size
            rows[row_count, LINE_NUMBER] = number
            rows[row_count, ROW_END] = end
            row_count += 1
            at = p + 1
        else:
            line_feed = at
            while text[line_feed] != _LINE_FEED:
                line_feed += 1
            line_end = line_feed
            if line_end > at and text[line_end - 1] == _RETURN:
                line_end -= 1
            # an empty line is none
            if line_end > at:
                odd[odd_count, ODD_NUMBER] = number
                odd[odd_count, ODD_START] = at
                odd[odd_count, ODD_END] = line_end
                odd_count += 1
            at = line_feed + 1
        number += 1
    return at, number, end, row_count, odd_count


@njit(cache=True, nogil=True)
def put_pseudonyms(people: Integers, out: Bytes, rows: Integers, unknown: Integers, forgotten: Integers) -> Any:
    """Write the pseudonym of each row's person where it belongs.

    `people` is an open hash table of (id, pseudonym), at least one entry NOBODY. Returns how many entries were filled
    of `unknown`, rows whose person is not in the table, and of `forgotten`, rows of people who asked for it.
    """
    unknown_count, forgotten_count = 0, 0
    for row in range(rows.shape[0]):
        person_id = rows[row, PERSON_ID]
        entry = _entry(people, person_id)
        if people[entry, 0] == person_id:
            _put(out, rows[row, PERSON_AT], people[entry, 1], 8)
        elif people[entry, 0] == ~person_id:
            forgotten[forgotten_count] = row
            forgotten_count += 1
        else:
            unknown[unknown_count] = row
            unknown_count += 1
    return unknown_count, forgotten_count


@njit(cache=True, nogil=True)
def remember(people: Integers, keys: Integers, pseudonyms: Integers) -> None:
    """Put people into the table: `keys` are ids not yet in it, or ~id of those who asked to be forgotten, or NOBODY."""
    for i in range(keys.size):
        key = keys[i]
        if key != NOBODY:
            entry = _entry(people, key if key >= 0 else ~key)
            people[entry, 0] = key
            people[entry, 1] = pseudonyms[i]


@njit
def _entry(people: Integers, person_id: int) -> Any:
    """The entry of a person, or the free one where they belong."""
    mask = people.shape[0] - 1
    # ids are often consecutive: the multiplication scatters them, its upper bits best
    entry = ((person_id * 0x9E3779B97F4A7C1 ^ person_id) >> 20) & mask
    while people[entry, 0] not in (person_id, ~person_id, NOBODY):
        entry = (entry + 1) & mask
    return entry


@njit
def _put(out: Bytes, at: int, value: int, size: int) -> int:
    """Write a big-endian integer and return the place after it."""
    for i in range(size):
        out[at + i] = (value >> (8 * (size - 1 - i))) & 0xFF
    return at + size


@njit
def _digit(text: Bytes, p: int) -> Any:
    return np.int64(text[p]) - _ZERO


@njit
def _two_digits(text: Bytes, p: int) -> Any:
    tens, ones = _digit(text, p), _digit(text, p + 1)
    return tens * 10 + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else -1


@njit
def _moment(
    text: Bytes, p: int, out: Bytes, o: int, month: Bytes, first_day: int, last_day: int, day_zero_us: int
) -> Any:
    """ "2019-10-01 00:00:00 UTC" as microseconds since 2000."""
    if p + 23 >= text.size:
        return -1, o, 0
    for i in range(8):
        if text[p + i] != month[i]:
            return -1, o, 0
    day, hour, minute, second = (
        _two_digits(text, p + 8),
        _two_digits(text, p + 11),
        _two_digits(text, p + 14),
        _two_digits(text, p + 17),
    )
    if not (first_day <= day <= last_day and 0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60):
        return -1, o, 0
    if (
        text[p + 10] != _BLANK
        or text[p + 13] != _COLON
        or text[p + 16] != _COLON
        or text[p + 19] != _BLANK
        or text[p + 20] != 85
        or text[p + 21] != 84
        or text[p + 22] != 67
    ):
        return -1, o, 0
    seconds = ((day * 24 + hour) * 60 + minute) * 60 + second
    return p + 23, _put(out, o, day_zero_us + seconds * _MICROSECONDS, 8), day


@njit
def _choice(
    text: Bytes, p: int, out: Bytes, o: int, words: Bytes, word_ends: Integers, first_word: int, word_after: int
) -> Any:
    """One of the words; the field ends with it."""
    size = 0
    while _IS_TEXT[text[p + size]]:
        size += 1
    for word in range(first_word, word_after):
        start = word_ends[word - 1] if word else 0
        if word_ends[word] - start == size:
            i = 0
            while i < size and text[p + i] == words[start + i]:
                i += 1
            if i == size:
                for i in range(size):
                    out[o + i] = words[start + i]
                return p + size, o + size
    return -1, o


@njit
def _whole_number(text: Bytes, p: int, out: Bytes, o: int, may_be_empty: bool) -> Any:
    """Up to 18 digits, or 19 that do not begin with 9: those may be too many for 64 bits."""
    first = p
    value = 0
    while _ZERO <= text[p] <= _NINE and p - first <= MOST_DIGITS + 1:
        value = value * 10 + _digit(text, p)
        p += 1
    digits = p - first
    if digits == 0:
        return (p if may_be_empty else -1), o, 0
    if digits > MOST_DIGITS and (digits > MOST_DIGITS + 1 or text[first] == _NINE):
        return -1, o, 0
    return p, _put(out, o, value, 8), value


@njit
def _digit_count(text: Bytes, p: int) -> int:
    count = 0
    while _ZERO <= text[p + count] <= _NINE:
        count += 1
    return count


@njit
def _decimal(text: Bytes, p: int, out: Bytes, o: int) -> Any:
    """A number as Postgres keeps it: base-10000 digits, the first one's weight, sign, digits shown after the point."""
    first = p
    is_negative = text[p] == _MINUS
    if is_negative:
        p += 1
    whole = _digit_count(text, p)
    if whole == 0 and p == first:
        return p, o
    fraction = 0
    if 1 <= whole <= MOST_DIGITS and text[p + whole] == _POINT:
        fraction = _digit_count(text, p + whole + 1)
        if fraction == 0:
            return -1, o
    if whole == 0 or whole > MOST_DIGITS or fraction > MOST_DIGITS:
        return -1, o
    whole_groups, fraction_groups = (whole + 3) // 4, (fraction + 3) // 4
    o = _put(out, o, whole_groups + fraction_groups, 2)
    o = _put(out, o, whole_groups - 1, 2)
    o = _put(out, o, _NUMERIC_NEGATIVE if is_negative else 0, 2)
    o = _put(out, o, fraction, 2)
    group = 0
    for i in range(whole):
        group = group * 10 + _digit(text, p + i)
        if (whole - i) % 4 == 1:
            o = _put(out, o, group, 2)
            group = 0
    p += whole
    if fraction:
        p += 1
        for i in range(4 * fraction_groups):
            group = group * 10 + (_digit(text, p + i) if i < fraction else 0)
            if i % 4 == 3:
                o = _put(out, o, group, 2)
                group = 0
        p += fraction
    return p, o


@njit
def _uuid(text: Bytes, p: int, out: Bytes, o: int, may_be_empty: bool) -> Any:
    """Lower case, in groups of 8-4-4-4-12."""
    if may_be_empty and text[p] in (_COMMA, _RETURN, _LINE_FEED):
        return p, o
    if p + 36 >= text.size:
        return -1, o
    i = 0
    while i < 36:
        if i in (8, 13, 18, 23):
            if text[p + i] != _MINUS:
                return -1, o
            i += 1
        else:
            high, low = _NIBBLES[text[p + i]], _NIBBLES[text[p + i + 1]]
            if high < 0 or low < 0:
                return -1, o
            out[o] = high << 4 | low
            o += 1
            i += 2
    return p + 36, o


@njit
def _text(text: Bytes, p: int, out: Bytes, o: int) -> Any:
    """Printable ASCII without quotes, delimiters and what e-mail addresses are made of."""
    first = p
    while _IS_TEXT[text[p]]:
        if p - first == LONGEST_TEXT:
            return -1, o
        out[o] = text[p]
        p += 1
        o += 1
    return p, o
