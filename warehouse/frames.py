"""Pandas frames out of Postgres and into it, by binary COPY; what the columns mean is not known here.

Reading, nulls never travel as such: the query replaces them by a value of the type, so that every row is equally long
and numpy cuts a whole piece at once. Writing, rows are laid out equally long as well, and the bytes too many taken out.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
# the received bytes are cut into columns, and frames into rows, a piece at a time: no second copy of the whole
PIECE_BYTES = 4 * 2**20
PIECE_ROWS = 65_536
# Postgres counts microseconds from 2000-01-01
EPOCH_MICROSECONDS = 946_684_800_000_000


@dataclass(frozen=True)
class _Kind:
    """How values of some Postgres types travel. `wire_type` None: of any length. `flag`: a column tells the nulls."""

    expression: str
    wire_type: str | None
    has_flag: bool = False


_WHOLE = _Kind("coalesce({}, 0)::bigint", ">i8", has_flag=True)
_NUMBER = _Kind("coalesce({}, 'NaN')::float8", ">f8")
_TRUTH = _Kind("coalesce({}, false)", "?", has_flag=True)
_MOMENT = _Kind("coalesce({}, '-infinity')", ">i8")
_LOCAL_MOMENT = _Kind("coalesce({}::timestamp, '-infinity')", ">i8")
_TEXT = _Kind("{}::text", None)

_KINDS = {
    "int2": _WHOLE,
    "int4": _WHOLE,
    "int8": _WHOLE,
    "float4": _NUMBER,
    "float8": _NUMBER,
    "numeric": _NUMBER,
    "bool": _TRUTH,
    "timestamptz": _MOMENT,
    "timestamp": _LOCAL_MOMENT,
    "date": _LOCAL_MOMENT,
}


class _MicrosecondLoader(Loader):
    """Reads a timestamp as a number, infinity included, which a datetime cannot hold."""

    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        (microseconds,) = struct.unpack(">q", data)
        return int(microseconds)


def read_frame(connection: psycopg.Connection, query: str) -> "pd.DataFrame":
    """Read a query's rows into a frame; without text at little more than what the server takes to send them.

    Types: whole numbers int64, other numbers (numeric among them) float64, boolean bool, timestamptz
    datetime64[us, UTC], timestamp and date datetime64[us]; text and everything else str, as Postgres writes it.
    Nulls are NaN or NaT; whole numbers and booleans with nulls become Int64 and boolean, because a float would round
    pseudonyms. Infinite times become NaT.

    Args:
        connection: any role's; nothing is committed.
        query: one select, without parameters. Order the rows in it where order matters.

    Raises:
        psycopg.Error: whatever the server says of the query.
    """
    import pandas as pd

    inner = query.strip().rstrip(";")
    kinds, names = _columns(connection, inner)
    if not kinds:
        raise ValueError("a frame needs a query with columns")
    parts = [part for position, kind in enumerate(kinds) for part in _parts(kind, f"c{position}")]
    aliases = ", ".join(f"c{position}" for position in range(len(kinds)))
    # the line break ends a trailing comment
    values = ", ".join(part for part, _ in parts)
    selection = f"select {values} from ({inner}\n) as q ({aliases})".encode()  # noqa: S608 (the query is the argument)
    wire_types = [wire_type for _, wire_type in parts]
    fixed = [wire_type for wire_type in wire_types if wire_type is not None]
    if len(fixed) == len(wire_types):
        arrays = iter(_cut_pieces(connection, selection, fixed))
    else:
        arrays = iter(_cut_rows(connection, selection, wire_types))
    columns = {
        position: _column(kind, next(arrays), next(arrays) if kind.has_flag else None)
        for position, kind in enumerate(kinds)
    }
    frame = pd.DataFrame(columns, copy=False)
    frame.columns = pd.Index(names)
    return frame


def _columns(connection: psycopg.Connection, inner: str) -> tuple[list[_Kind], list[str]]:
    with connection.cursor() as cursor:
        cursor.execute(f"select * from ({inner}\n) as q limit 0".encode())  # noqa: S608 (the query is the argument)
        columns = cursor.description or []
    types = connection.adapters.types
    kinds = {types[name].oid: kind for name, kind in _KINDS.items()}
    return [kinds.get(column.type_code, _TEXT) for column in columns], [column.name for column in columns]


def _parts(kind: _Kind, name: str) -> list[tuple[str, str | None]]:
    value = (kind.expression.format(name), kind.wire_type)
    return [value, (f"{name} is null", "?")] if kind.has_flag else [value]


def _cut_pieces(connection: psycopg.Connection, selection: bytes, wire_types: Sequence[str]) -> list["np.ndarray"]:
    import numpy as np

    fields = [("field_count", ">i2")]
    for position, wire_type in enumerate(wire_types):
        fields += [(f"length{position}", ">i4"), (f"value{position}", wire_type)]
    row_type = np.dtype(fields)
    pieces: list[list[np.ndarray]] = [[] for _ in wire_types]

    def cut(block: bytearray) -> None:
        row_count = len(block) // row_type.itemsize
        rows = np.frombuffer(block, dtype=row_type, count=row_count)
        for position, column in enumerate(pieces):
            values = rows[f"value{position}"]
            column.append(values.astype(values.dtype.newbyteorder("=")))

    with (
        connection.cursor() as cursor,
        cursor.copy(b"copy (" + selection + b") to stdout with (format binary)") as copy,
    ):
        block = bytearray(copy.read())
        del block[: len(HEADER)]
        for data in copy:
            block += data
            if len(block) >= PIECE_BYTES:
                cut(block)
                del block[: len(block) - len(block) % row_type.itemsize]
    cut(block)
    if block[len(block) - len(block) % row_type.itemsize :] != TRAILER:
        raise RuntimeError("the server sent rows of unequal length")
    # each column's pieces go as soon as they are joined
    pieces.reverse()
    return [np.concatenate(pieces.pop()) for _ in wire_types]


def _cut_rows(connection: psycopg.Connection, selection: bytes, wire_types: Sequence[str | None]) -> list["np.ndarray"]:
    import numpy as np

    with connection.cursor(binary=True) as cursor:
        for type_name in ("timestamptz", "timestamp"):
            cursor.adapters.register_loader(type_name, _MicrosecondLoader)
        rows = cursor.execute(selection).fetchall()
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(wire_types)
    return [
        np.array(column, dtype=np.dtype(wire_type).newbyteorder("=") if wire_type else object)
        for column, wire_type in zip(columns, wire_types, strict=True)
    ]


def _column(kind: _Kind, values: "np.ndarray", is_null: "np.ndarray | None") -> Any:
    import pandas as pd

    if kind in (_MOMENT, _LOCAL_MOMENT):
        return _moments(values, is_local=kind is _LOCAL_MOMENT)
    if kind is _TEXT:
        return pd.array(values, dtype="str")
    if is_null is None or not is_null.any():
        return values
    return pd.arrays.IntegerArray(values, is_null) if kind is _WHOLE else pd.arrays.BooleanArray(values, is_null)


def _moments(values: "np.ndarray", *, is_local: bool) -> "pd.DatetimeIndex":
    import numpy as np
    import pandas as pd

    limits = np.iinfo(np.int64)
    is_infinite = (values == limits.min) | (values == limits.max)
    # the least number is pandas' NaT
    microseconds = np.where(is_infinite, limits.min, np.where(is_infinite, 0, values) + EPOCH_MICROSECONDS)
    moments = pd.DatetimeIndex(microseconds.view("datetime64[us]"))
    return moments if is_local else moments.tz_localize("UTC")


# what a column of each type takes on the wire; None: text, of any length
_WRITTEN = {
    "int2": ">i2",
    "int4": ">i4",
    "int8": ">i8",
    "float4": ">f4",
    "float8": ">f8",
    "bool": "?",
    "timestamptz": ">i8",
    "text": None,
}
_COPY_PLACE = re.compile(r"\b(line \d+(?:, column \w+)?)")


def write_frame(connection: psycopg.Connection, table: str, frame: "pd.DataFrame") -> int:
    """Append a frame's rows to a table and return their number: about 0.3 µs for a row of 7 columns, then the server.

    All or none; committing is the caller's. Nulls of any kind are null. Text is best categorical: each category is
    encoded once.

    Args:
        connection: of a role that may insert and select.
        table: `schema.table`, or the name of a temporary table.
        frame: columns named as the table's, in any order. Types of the table: smallint, integer, bigint, real, double
            precision, boolean, timestamptz (times without a zone are UTC) and text.

    Raises:
        ValueError: a column has another type, or a value that does not fit it.
        psycopg.Error: the server refused. The message says where but not what: values may be personal.
    """
    target = sql.Identifier(*table.split("."))
    names = sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("select {} from {} limit 0").format(names, target))
        described = cursor.description or []
    by_oid = {connection.adapters.types[name].oid: name for name in _WRITTEN}
    for column in described:
        if column.type_code not in by_oid:
            raise ValueError(f"{table}.{column.name} is {column.type_display}, which a frame is not written to.")
    type_names = [by_oid[column.type_code] for column in described]
    try:
        with (
            connection.cursor() as cursor,
            cursor.copy(sql.SQL("copy {} ({}) from stdin with (format binary)").format(target, names)) as copy,
        ):
            copy.write(HEADER)
            for start in range(0, len(frame), PIECE_ROWS):
                copy.write(_rows(frame.iloc[start : start + PIECE_ROWS], type_names, table))
            copy.write(TRAILER)
    except psycopg.DatabaseError as error:
        raise _without_values(error, table) from None
    return len(frame)


def _rows(piece: "pd.DataFrame", type_names: Sequence[str], table: str) -> bytes:
    import numpy as np

    columns = [
        _texts(values) if type_name == "text" else _fixed(values, type_name, f"{table}.{name}")
        for (name, values), type_name in zip(piece.items(), type_names, strict=True)
    ]
    fields = [("field_count", ">i2")]
    for position, (values, _) in enumerate(columns):
        fields += [(f"length{position}", ">i4"), (f"value{position}", values.dtype.str)]
    row_type = np.dtype(fields)
    rows = np.empty(len(piece), dtype=row_type)
    rows["field_count"] = len(columns)
    is_sent = np.ones((len(piece), row_type.itemsize), dtype=bool)
    for position, (values, lengths) in enumerate(columns):
        rows[f"length{position}"] = lengths
        rows[f"value{position}"] = values
        if (lengths != values.dtype.itemsize).any():
            place = row_type.fields[f"value{position}"][1] if row_type.fields else 0
            width = values.dtype.itemsize
            is_sent[:, place : place + width] = np.arange(width) < lengths[:, np.newaxis]
    return rows.view(np.uint8).reshape(is_sent.shape)[is_sent].tobytes()


def _fixed(values: "pd.Series", type_name: str, column: str) -> tuple["np.ndarray", "np.ndarray"]:
    """A column's values as they travel, and their lengths: -1 is null."""
    import numpy as np
    import pandas as pd

    is_null = values.isna().to_numpy()
    wire_type = np.dtype(_WRITTEN[type_name])
    try:
        if type_name == "timestamptz":
            if pd.api.types.is_numeric_dtype(values):
                raise TypeError
            moments = pd.to_datetime(values, utc=True).to_numpy(dtype="datetime64[us]")
            known = np.where(is_null, 0, moments.view(np.int64) - EPOCH_MICROSECONDS)
        else:
            known = (values.fillna(False if wire_type.kind == "b" else 0) if is_null.any() else values).to_numpy()
        sent = known.astype(wire_type)
        fits = wire_type.kind == "f" or np.array_equal(sent, known)
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise ValueError(f"{column} holds a value that does not fit {type_name}.")
    return sent, np.where(is_null, -1, wire_type.itemsize)


def _texts(values: "pd.Series") -> tuple["np.ndarray", "np.ndarray"]:
    import numpy as np
    import pandas as pd

    known = pd.Categorical(values)
    # the last one for nulls, whose code is -1
    texts = [str(text).encode() for text in known.categories] + [b""]
    lengths = np.array([*map(len, texts[:-1]), -1])
    return np.array(texts)[known.codes], lengths[known.codes]


def _without_values(error: psycopg.DatabaseError, table: str) -> psycopg.DatabaseError:
    if error.sqlstate is None:
        return error
    # `COPY t, line 3, column price: "…"`
    place = _COPY_PLACE.search(error.diag.context or "")
    where = f", {place.group(1)}" if place else ""
    return type(error)(f"{type(error).__name__} ({error.sqlstate}) on copying into {table}{where}")
