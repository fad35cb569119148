"""What a person reads as a sentence. Failures of the program itself stay ordinary exceptions."""

import psycopg


class UserError(Exception):
    """A mistake of the user; the message is one clear sentence: what, where, what to do.

    The command line prints it on stderr and exits 2.
    """


def outage(error: psycopg.Error) -> str | None:
    """Say why the server stopped, if that is no fault of a statement: its disk is full, or the connection is gone."""
    if isinstance(error, psycopg.errors.DiskFull):
        return "the disk of the database is full, and nothing was changed: make room and try again"
    # 57P: shut down, crashed, still starting
    if isinstance(error, psycopg.OperationalError) and (error.sqlstate or "57P").startswith("57P"):
        return "the database broke the connection off: try again, nothing is done twice"
    return None
