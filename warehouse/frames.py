"""A query's rows as a pandas frame. Used through `warehouse.copy.read_frame`; what the columns mean is not known here.

Nulls never travel as such: the query replaces them by a value of the type, so that every row of a binary COPY is
equally long and numpy cuts the whole block at once.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

HEADER_BYTES = 19
TRAILER_BYTES = 2
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
    """Read a query's rows into a frame: about 2 µs for a row of 16 columns without text, more with text.

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
        arrays = iter(_cut_block(_copied(connection, selection), fixed))
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


def _copied(connection: psycopg.Connection, selection: bytes) -> bytearray:
    block = bytearray()
    with (
        connection.cursor() as cursor,
        cursor.copy(b"copy (" + selection + b") to stdout with (format binary)") as copy,
    ):
        for data in copy:
            block += data
    return block


def _cut_block(block: bytearray, wire_types: Sequence[str]) -> list["np.ndarray"]:
    import numpy as np

    fields = [("field_count", ">i2")]
    for position, wire_type in enumerate(wire_types):
        fields += [(f"length{position}", ">i4"), (f"value{position}", wire_type)]
    row_type = np.dtype(fields)
    row_count, remainder = divmod(len(block) - HEADER_BYTES - TRAILER_BYTES, row_type.itemsize)
    if remainder:
        raise RuntimeError("the server sent rows of unequal length")
    rows = np.frombuffer(block, dtype=row_type, count=row_count, offset=HEADER_BYTES)
    columns = [rows[f"value{position}"] for position in range(len(wire_types))]
    return [column.astype(column.dtype.newbyteorder("=")) for column in columns]


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
