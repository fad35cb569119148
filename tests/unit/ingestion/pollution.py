"""Polluted files with the truth they were made of, and how well a reader recovers it.

The kinds of pollution and the ten measures are those of Pollock (Vitagliano et al., VLDB 2023); text and code are ours.
Each file comes with the dialect that somebody would declare who has looked at it. A damaged row's truth is the row
before the damage.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ingestion.dialect import Dialect, Record, read_records, settled_encoding
from ingestion.door import RejectedLine

SEED = 2023
ROW_COUNT = 84
HEADER = ("date", "time", "quantity", "product_id", "price", "product", "description", "url", "comment")
PRODUCTS = ("Chaise pliante", "Théière émaillée", "Lampe de bureau", "Tapis, laine", 'Écran 24"', "Gants", "Vélo d'été")
PHRASES = (
    "solide et légère",
    "se range, se lave et se répare",
    "livrée en deux jours",
    'dite "la belle"',
    "garantie à vie",
    "l'hiver comme l'été",
    "pour 12 personnes",
)
LEGACY_ENCODINGS = ("cp1252", "latin-1", "iso-8859-15", "cp850", "mac-roman")

Row = tuple[str, ...]


@dataclass(frozen=True)
class Polluted:
    """A file, what it was made of and how somebody would declare it.

    `damaged` are the places, from 0, of the rows that were hit. `other_rows` belong to another table that stands in the
    same file: they are part of the truth, but nobody declared their columns.
    """

    kind: str
    name: str
    content: bytes
    dialect: Dialect
    header: Row = HEADER
    rows: tuple[Row, ...] = ()
    damaged: frozenset[int] = frozenset()
    other_rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """What a reader made of a file."""

    header: Row
    rows: Sequence[Row]


@dataclass(frozen=True)
class Score:
    """The ten measures of one file, each from 0 to 1, and the rows read that are none of the truth's."""

    success: float = 0.0
    header: tuple[float, float, float] = (0.0, 0.0, 0.0)
    records: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cells: tuple[float, float, float] = (0.0, 0.0, 0.0)
    wrong_rows: int = 0

    @property
    def total(self) -> float:
        """At most 10."""
        return self.success + sum(self.header) + sum(self.records) + sum(self.cells)


def score(file: Polluted, loaded: Loaded | None) -> Score:
    """Compare what was loaded, None for a reader that gave up, with the truth."""
    if loaded is None:
        return Score()
    truth = [*file.rows, *file.other_rows]
    return Score(
        1.0,
        _precision_recall_f1(file.header, loaded.header),
        _precision_recall_f1(truth, loaded.rows),
        _precision_recall_f1([cell for row in truth for cell in row], [cell for row in loaded.rows for cell in row]),
        (Counter(loaded.rows) - Counter(truth)).total(),
    )


def _precision_recall_f1(truth: Sequence[object], loaded: Sequence[object]) -> tuple[float, float, float]:
    if not truth:
        return (1.0, 1.0, 1.0)
    common = (Counter(truth) & Counter(loaded)).total()
    if not common:
        return (0.0, 0.0, 0.0)
    precision, recall = common / len(loaded), common / len(truth)
    return precision, recall, 2 * precision * recall / (precision + recall)


def simple_score(scores: Sequence[Score]) -> float:
    """Pollock's simple score: the mean of the files' totals, at most 10."""
    return fmean(one.total for one in scores)


def read(file: Polluted, block_bytes: int = 1000) -> tuple[Loaded, list[RejectedLine]]:
    """What Agora's reader makes of a file, and the lines it turns away."""
    blocks = [(file.content[i : i + block_bytes], i) for i in range(0, len(file.content), block_bytes)]
    encoding = settled_encoding(blocks, file.dialect.encoding)
    records: list[Row] = []
    rejected: list[RejectedLine] = []
    for record in read_records(blocks, file.dialect, encoding):
        if isinstance(record, Record):
            records.append(tuple(record.fields))
        else:
            rejected.append(record)
    header = file.dialect.columns or (records.pop(0) if records else ())
    return Loaded(header, records), rejected


# Writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """How a table is written; `quoted` are columns that are quoted whatever stands in them."""

    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None
    newline: str = "\r\n"
    encoding: str = "utf-8"
    quoted: tuple[int, ...] = (6, 7)

    @property
    def dialect(self) -> Dialect:
        return Dialect(self.delimiter, self.quote, self.escape, self.encoding)

    def cell(self, text: str, column: int) -> str:
        has_mark = any(mark in text for mark in (*self.delimiter, self.quote or "\n", "\r", "\n"))
        if not self.quote:
            return text
        if column not in self.quoted and not has_mark:
            return text
        escape = self.quote if self.escape is None else self.escape
        if self.escape:
            text = text.replace(self.escape, self.escape * 2)
        return self.quote + text.replace(self.quote, escape + self.quote) + self.quote

    def cells(self, row: Sequence[str]) -> list[str]:
        return [self.cell(text, column) for column, text in enumerate(row)]

    def line(self, row: Sequence[str]) -> str:
        return self.delimiter.join(self.cells(row)) + self.newline

    def text(self, rows: Sequence[Row], header: Sequence[str] = HEADER) -> str:
        return "".join(map(self.line, (header, *rows)))


STANDARD = Style()


def clean_rows(row_count: int = ROW_COUNT, seed: int = SEED) -> tuple[Row, ...]:
    """Sales of a shop: nine columns; texts hold delimiters, quotes, accents and line breaks."""
    random_ = random.Random(seed)
    rows = []
    for place in range(row_count):
        product = random_.choice(PRODUCTS)
        phrases = random_.sample(PHRASES, random_.randint(1, 4))
        description = f"{product} {place}: {', '.join(phrases)}."
        if place % 20 == 7:
            description = description.replace(": ", ":\n", 1)
        rows.append(
            (
                f"{place % 28 + 1:02}/{place % 12 + 1:02}/2018",
                f"{place % 24:02}:{place * 15 % 60:02}",
                str(random_.randint(0, 30)),
                f"{random_.choice(('MG', 'RI', 'YY'))}-{random_.randint(1000, 9999)}",
                f"{random_.randint(1, 9999) / 100:.2f}",
                product,
                description,
                f"https://shop.example/p/{place}.html",
                "" if place % 9 else "fragile",
            )
        )
    return tuple(rows)


# Pollutions of the whole file -------------------------------------------------------------------------------------


def file_pollutions(rows: tuple[Row, ...]) -> Iterator[Polluted]:
    """Files that differ from the standard as a whole; their dialect says so."""
    text = STANDARD.text(rows)
    names = {"columns": HEADER}
    body = text[len(STANDARD.line(HEADER)) :]

    def file(kind: str, name: str, content: str | bytes, style: Style = STANDARD, **changes: object) -> Polluted:
        declared = {key: changes.pop(key) for key in ("skip_lines", "columns") if key in changes}
        encoded = content.encode(style.encoding) if isinstance(content, str) else content
        polluted = Polluted(kind, name, encoded, replace(style.dialect, **declared), rows=rows)
        return replace(polluted, **changes)

    yield file("standard", "source", text)
    yield file("structure", "no_payload", b"", header=(), rows=())
    yield file("structure", "header_only", STANDARD.line(HEADER), rows=())
    yield file("structure", "one_data_row", STANDARD.text(rows[:1]), rows=rows[:1])
    yield file("structure", "no_trailing_newline", text.removesuffix("\r\n"))
    yield file("structure", "double_trailing_newline", text + "\r\n")
    yield file("structure", "empty_lines_between", text.replace("\r\n0", "\r\n\r\n0"))
    yield file("structure", "no_header", body, **names)
    units = ("day", "", "pieces", "", "EUR", "", "", "", "")
    for count in (2, 3):
        more = STANDARD.line(units) * (count - 1)
        yield file(
            "structure", f"header_of_{count}_rows", STANDARD.line(HEADER) + more + body, skip_lines=count, **names
        )

    preambles = {
        "delimited": 'Sales of 2018,,,,,,,,\r\n"made by hand",,,,,,,,\r\n\r\n',
        "not_delimited": "Sales of 2018\r\nmade by hand\r\n\r\n",
        "with_a_stray_quote": 'Sales of the 24" screens, 2018\r\n"made by hand\r\n\r\n',
        "of_one_line": "sep=,\r\n",
    }
    for name, lines in preambles.items():
        yield file("preamble", f"preamble_{name}", lines + text, skip_lines=lines.count("\n"))
    yield file("footer", "footer_not_delimited", text + "Total of 2018\r\nend of file\r\n")
    yield file("footer", "footer_after_empty_line", text + "\r\n\r\n84 rows")

    for name, columns in (("same", 9), ("less", 5), ("more", 12)):
        other = [(*row, *"xyz")[:columns] for row in (HEADER, *rows[:10])]
        second = "".join(map(STANDARD.line, other))
        yield file("second table", f"two_tables_{name}_columns", text + second, other_rows=tuple(other))

    for name, newline in (("lf", "\n"), ("cr", "\r"), ("crlf", "\r\n")):
        style = replace(STANDARD, newline=newline)
        yield file("record delimiter", f"record_delimiter_{name}", style.text(rows), style)
    mixed = [replace(STANDARD, newline=("\n", "\r", "\r\n")[place % 3]).line(row) for place, row in enumerate(rows)]
    yield file("record delimiter", "record_delimiter_mixed", STANDARD.line(HEADER) + "".join(mixed))

    for delimiter in (";", "\t", " ", "|", ":", ", ", "\t\t", "~", "^", "\x1f", "§"):
        style = replace(STANDARD, delimiter=delimiter)
        marks = "_".join(f"{ord(mark):x}" for mark in delimiter)
        yield file("field delimiter", f"field_delimiter_{marks}", style.text(rows), style)

    flat = tuple(tuple(cell.replace("\n", " ") for cell in row) for row in rows)
    styles = {
        "quote_apostrophe": replace(STANDARD, quote="'"),
        "quote_apostrophe_semicolon": replace(STANDARD, quote="'", delimiter=";"),
        "quote_everything": replace(STANDARD, quoted=tuple(range(9))),
        "quote_where_needed": replace(STANDARD, quoted=()),
        "escape_backslash": replace(STANDARD, escape="\\"),
        "escape_backslash_everything": replace(STANDARD, escape="\\", quoted=tuple(range(9))),
        "escape_backslash_apostrophe": replace(STANDARD, escape="\\", quote="'"),
        "escape_missing": replace(STANDARD, escape=""),
        "escape_missing_everything": replace(STANDARD, escape="", quoted=tuple(range(9))),
    }
    ambiguous = frozenset(place for place, row in enumerate(rows) if any('",' in cell for cell in row))
    for name, style in styles.items():
        # without an escape character, nobody can tell such a quote from the end of its field
        hit = ambiguous if style.escape == "" else frozenset()
        yield file("quotes", name, style.text(rows), style, damaged=hit)
    for name, style in (
        ("tab", replace(STANDARD, quote="", delimiter="\t")),
        ("pipe", replace(STANDARD, quote="", delimiter="|")),
    ):
        yield file("quotes", f"quote_none_{name}", style.text(flat), style, rows=flat)

    for encoding in (*LEGACY_ENCODINGS, "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        style = replace(STANDARD, encoding=encoding)
        yield file("encoding", f"encoding_{encoding}", text, style)
    declared = replace(STANDARD, encoding="cp1252")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        yield file("encoding", f"encoding_{encoding}_though_cp1252_is_declared", text.encode(encoding), declared)


# Pollutions of one row --------------------------------------------------------------------------------------------

Damage = Callable[[list[str], int], str]


def _without_delimiter(cells: list[str], column: int) -> str:
    """The delimiter before `column` is missing."""
    return ",".join([*cells[: column - 1], cells[column - 1] + cells[column], *cells[column + 1 :]])


def _with_delimiter(cells: list[str], column: int) -> str:
    return ",".join([*cells[:column], "", *cells[column:]])


def _with_quote(cells: list[str], column: int) -> str:
    return ",".join([*cells[:column], '"' + cells[column], *cells[column + 1 :]])


def _with_quote_behind(cells: list[str], column: int) -> str:
    return ",".join([*cells[:column], cells[column] + '"', *cells[column + 1 :]])


def _with_quote_amid(cells: list[str], column: int) -> str:
    middle = len(cells[column]) // 2
    return ",".join([*cells[:column], cells[column][:middle] + '"' + cells[column][middle:], *cells[column + 1 :]])


def _never_closed(cells: list[str], column: int) -> str:
    """A quoted cell lacks its last quote."""
    return ",".join([*cells[:column], cells[column].removesuffix('"'), *cells[column + 1 :]])


def _never_opened(cells: list[str], column: int) -> str:
    return ",".join([*cells[:column], cells[column].removeprefix('"'), *cells[column + 1 :]])


def _with_spaces(cells: list[str], column: int) -> str:
    return " ".join(cells)


def _with_semicolons(cells: list[str], column: int) -> str:
    return ";".join(cells)


def _cut_off(cells: list[str], column: int) -> str:
    return ",".join(cells)[: len(",".join(cells[:column])) + 1]


def _twice(cells: list[str], column: int) -> str:
    """The line end behind the row is missing: written here as the row and its own copy on one line."""
    return ",".join(cells) + ",".join(cells)


ALL_COLUMNS = tuple(range(len(HEADER)))
DAMAGES: dict[str, tuple[Damage, tuple[int, ...]]] = {
    "less_delimiters": (_without_delimiter, ALL_COLUMNS[1:]),
    "more_delimiters": (_with_delimiter, ALL_COLUMNS),
    "extra_quote": (_with_quote, ALL_COLUMNS),
    "extra_quote_behind": (_with_quote_behind, ALL_COLUMNS),
    "extra_quote_amid": (_with_quote_amid, ALL_COLUMNS),
    "quote_never_closed": (_never_closed, (6, 7)),
    "quote_never_opened": (_never_opened, (6, 7)),
    "spaces_for_delimiters": (_with_spaces, (0,)),
    "semicolons_for_delimiters": (_with_semicolons, (0,)),
    "cut_off": (_cut_off, ALL_COLUMNS[1:]),
    "two_rows_on_a_line": (_twice, (0,)),
}
# of Pollock's own 2,289 files, these damages make 2,268: every row, the header's too, and every column
POLLOCKS_DAMAGES = ("less_delimiters", "more_delimiters", "extra_quote", "spaces_for_delimiters")


def damaged(rows: tuple[Row, ...], kind: str, line: int, column: int) -> Polluted:
    """A standard file one of whose rows is damaged; `line` 0 is the header, whose names are declared then."""
    damage, _ = DAMAGES[kind]
    lines = [STANDARD.line(row) for row in (HEADER, *rows)]
    lines[line] = damage(STANDARD.cells((HEADER, *rows)[line]), column) + "\r\n"
    dialect = Dialect(columns=HEADER, skip_lines=1) if line == 0 else Dialect()
    hit = frozenset((line - 1,) if line else ())
    name = f"{kind}_row{line}_col{column}"
    return Polluted(kind, name, "".join(lines).encode(), dialect, rows=rows, damaged=hit)


def row_pollutions(rows: tuple[Row, ...], seed: int = SEED) -> Iterator[Polluted]:
    """For each kind of damage a few files: the header, the first, last and any other row; every column."""
    random_ = random.Random(seed)
    for kind, (_, columns) in DAMAGES.items():
        places = [0, 1, len(rows), 8, *random_.sample(range(2, len(rows)), 5)]
        for place, line in enumerate(places):
            yield damaged(rows, kind, line, columns[place % len(columns)])
    for line in (1, 8, len(rows)):
        yield _other_bytes(rows, "row_in_another_encoding", line, lambda text: text.replace("o", "é").encode("cp1252"))
        yield _other_bytes(rows, "row_with_half_a_letter", line, lambda text: text.encode().replace(b":", b"\xc3", 1))


def _other_bytes(rows: tuple[Row, ...], kind: str, line: int, encode: Callable[[str], bytes]) -> Polluted:
    lines = [STANDARD.line(row).encode() for row in (HEADER, *rows)]
    lines[line] = encode(STANDARD.line(rows[line - 1]))
    return Polluted(kind, f"{kind}_{line}", b"".join(lines), Dialect(), rows=rows, damaged=frozenset((line - 1,)))


def pollutions() -> list[Polluted]:
    """Somewhat over 150 files, of every kind some."""
    rows = clean_rows()
    return [*file_pollutions(rows), *row_pollutions(rows)]


def pollutions_in_pollocks_mix() -> Iterator[Polluted]:
    """About as many files as Pollock's, in its mix: nearly all have one damaged row, in every place there is."""
    rows = clean_rows()
    yield from file_pollutions(rows)
    for kind in POLLOCKS_DAMAGES:
        for line in range(len(rows) + 1):
            for column in DAMAGES[kind][1]:
                yield damaged(rows, kind, line, column)
