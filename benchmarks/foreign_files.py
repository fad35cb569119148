"""How well polluted CSV files are read: Agora's reader beside others that are told the same dialect.

    make bench-foreign-files

The files, their truth and the ten measures are those of tests/unit/ingestion/pollution.py, after the idea of Pollock
(Vitagliano et al., VLDB 2023): somewhat over 150 files of every kind, and about 2,300 in Pollock's own mix, nearly all
with one damaged row. "Wrong" counts rows that were read and are none of the truth's: values moved, merged or cut.
A peer that is not installed is left out.
"""

import contextlib
import csv
import importlib.util
import io
import json
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "foreign_files.json"
sys.path.insert(0, str(CHECKOUT / "tests" / "unit" / "ingestion"))

from pollution import (  # noqa: E402  (it lies beside its test)
    Loaded,
    Polluted,
    pollutions,
    pollutions_in_pollocks_mix,
    read,
    score,
    simple_score,
)

Reader = Callable[[Polluted], Loaded]


def agora(file: Polluted) -> Loaded:
    return read(file, block_bytes=2**20)[0]


def python_csv(file: Polluted) -> Loaded:
    dialect = file.dialect
    lines = _text(file).splitlines(keepends=True)[dialect.skip_lines :]
    # it knows delimiters of one character, and a blank behind them
    delimiter = "," if dialect.delimiter == ", " else dialect.delimiter
    records = [
        tuple(fields)
        for fields in csv.reader(
            io.StringIO("".join(lines), newline=""),
            delimiter=delimiter,
            skipinitialspace=dialect.delimiter == ", ",
            quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
            **_marks(dialect),
        )
        if fields
    ]
    return _with_header(file, records)


def pandas(file: Polluted) -> Loaded:
    import pandas

    dialect = file.dialect
    is_long = len(dialect.delimiter.encode()) > 1
    if not file.content:
        return Loaded((), ())
    frame = pandas.read_csv(
        io.BytesIO(file.content),
        sep=re.escape(dialect.delimiter) if is_long else dialect.delimiter,
        engine="python" if is_long else "c",
        quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        encoding=dialect.encoding,
        encoding_errors="replace",
        skiprows=dialect.skip_lines,
        header=None,
        names=range(len(file.header)),
        index_col=False,
        dtype=str,
        keep_default_na=False,
        on_bad_lines="skip",
        **_marks(dialect),
    )
    return _with_header(file, [tuple(map(str, row)) for row in frame.fillna("").itertuples(index=False)])


def polars(file: Polluted) -> Loaded:
    import polars

    dialect = file.dialect
    frame = polars.read_csv(
        _text(file).encode(),
        separator=dialect.delimiter,
        quote_char=dialect.quote or None,
        eol_char="\r" if b"\n" not in file.content else "\n",
        skip_lines=dialect.skip_lines,
        has_header=False,
        infer_schema=False,
        raise_if_empty=False,
        truncate_ragged_lines=True,
        ignore_errors=True,
    )
    return _with_header(file, frame.fill_null("").rows())


def duckdb(file: Polluted) -> Loaded:
    import duckdb

    dialect = file.dialect
    with tempfile.NamedTemporaryFile(suffix=".csv") as copy:
        copy.write(_text(file).encode())
        copy.flush()
        rows = duckdb.read_csv(
            copy.name,
            delimiter=dialect.delimiter,
            quotechar=dialect.quote,
            escapechar=dialect.quote if dialect.escape is None else dialect.escape,
            skiprows=dialect.skip_lines,
            header=False,
            auto_detect=False,
            columns={f"column_{place}": "varchar" for place in range(len(file.header) or 1)},
            ignore_errors=True,
        ).fetchall()
    return _with_header(file, [tuple(cell or "" for cell in row) for row in rows])


def _marks(dialect: Any) -> dict[str, Any]:
    return {
        "quotechar": dialect.quote or '"',
        "escapechar": dialect.escape or None,
        "doublequote": dialect.escape != "",
    }


def _text(file: Polluted) -> str:
    encoding = "utf-8-sig" if file.dialect.encoding == "utf-8" else file.dialect.encoding
    return file.content.decode(encoding, errors="replace")


def _with_header(file: Polluted, records: Iterable[tuple[str, ...]]) -> Loaded:
    rows = list(records)
    header = file.dialect.columns or (rows.pop(0) if rows else ())
    return Loaded(tuple(header), rows)


READERS: dict[str, tuple[Reader, str]] = {
    "agora": (agora, "ingestion"),
    "Python csv": (python_csv, "csv"),
    "pandas": (pandas, "pandas"),
    "Polars": (polars, "polars"),
    "DuckDB": (duckdb, "duckdb"),
}


def main() -> None:
    mixes = {"every kind": pollutions(), "Pollock's mix": list(pollutions_in_pollocks_mix())}
    report: dict[str, Any] = {mix: {"files": len(files)} for mix, files in mixes.items()}
    for mix, files in mixes.items():
        print(f"{mix}: {len(files):,} files")
        print(f"  {'reader':<12}{'simple score':>14}{'files given up':>16}{'rows read wrongly':>20}{'seconds':>10}")
        for name, (reader, package) in READERS.items():
            if importlib.util.find_spec(package) is None:
                print(f"  {name:<12}{'not installed':>14}")
                continue
            started = time.perf_counter()
            loaded = [attempt(reader, file) for file in files]
            seconds = time.perf_counter() - started
            scores = [score(file, one) for file, one in zip(files, loaded, strict=True)]
            figures = {
                "simple_score": round(simple_score(scores), 4),
                "files_given_up": sum(one is None for one in loaded),
                "rows_read_wrongly": sum(one.wrong_rows for one in scores),
                "seconds": round(seconds, 1),
            }
            report[mix][name] = figures
            print(
                f"  {name:<12}{figures['simple_score']:>14.3f}{figures['files_given_up']:>16,}"
                f"{figures['rows_read_wrongly']:>20,}{figures['seconds']:>10}"
            )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


def attempt(reader: Reader, file: Polluted) -> Loaded | None:
    """What a reader makes of a file, None if it gives up, however it does."""
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(Exception):
        return reader(file)
    return None


if __name__ == "__main__":
    main()
