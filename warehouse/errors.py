"""The one exception that a person reads as a sentence. Failures of the program itself stay ordinary exceptions."""


class UserError(Exception):
    """A mistake of the user; the message is one clear sentence: what, where, what to do.

    The command line prints it on stderr and exits 2.
    """
