"""Errors that the user can mend, and what else ends a command with one line."""


class InputError(ValueError):
    """What was given does not work; the message says what came, what was expected and what to do.

    A command ends with this message alone.  Any other error is a fault of ours, and keeps its traceback.
    """


class NotFoundError(InputError, FileNotFoundError):
    """There is no such file, folder, name or repository."""


class AccuracyDroppedError(RuntimeError):
    """Accuracy fell further below that of the softmax model than was allowed."""


class Interrupted(Exception):  # noqa: N818  # an order, not an error
    """A signal ended the run; what was done is saved.

    Attributes:
        signal_number: of SIGINT or SIGTERM; a command exits with 128 plus it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
