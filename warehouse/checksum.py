"""One hash per published table: two warehouses that say the same have the same hashes.

Counts: business columns. Does not count: the order of rows, digits of floating numbers beyond the ninth, which run
made a row and when.
"""

import hashlib

import psycopg
from psycopg import sql

# columns that say when or by which run a row was made
RUN_COLUMNS = ("updated_at", "model_version", "load_id", "run_id", "generation")


def checksums(connection: psycopg.Connection, schema: str) -> dict[str, str]:
    """Return table name → SHA-256 (hex) for every table of the schema, in order of name; one snapshot for all."""
    tables = _tables(connection, schema)
    connection.rollback()
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        # before the snapshot: one that is older than a table sees it empty
        for table in tables:
            connection.execute(sql.SQL("lock table {} in access share mode").format(sql.Identifier(schema, table)))
        # floats are written with nine significant digits
        connection.execute("set local extra_float_digits = -6")
        connection.execute("set local timezone = 'UTC'")
        return {table: _checksum(connection, schema, table) for table in tables}


def _tables(connection: psycopg.Connection, schema: str) -> list[str]:
    rows = connection.execute(
        'select tablename from pg_tables where schemaname = %s order by tablename collate "C"', (schema,)
    )
    return [name for (name,) in rows]


def _checksum(connection: psycopg.Connection, schema: str, table: str) -> str:
    columns = [
        name
        for (name,) in connection.execute(
            "select column_name::text from information_schema.columns where table_schema = %s and table_name = %s"
            ' and column_name <> all(%s) order by column_name collate "C"',
            (schema, table, list(RUN_COLUMNS)),
        )
    ]
    statement = sql.SQL(
        'copy (select chosen::text from (select {} from {}) as chosen order by chosen::text collate "C") to stdout'
    ).format(sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(schema, table))
    digest = hashlib.sha256(",".join(columns).encode())
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for block in copy:
            digest.update(block)
    return digest.hexdigest()
