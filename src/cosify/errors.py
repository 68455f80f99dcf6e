"""Errors that the user can mend."""


class InputError(ValueError):
    """What was given does not work; the message says what came, what was expected and what to do.

    A command ends with this message alone.  Any other error is a fault of ours, and keeps its traceback.
    """


class NotFoundError(InputError, FileNotFoundError):
    """There is no such file, folder, name or repository."""
