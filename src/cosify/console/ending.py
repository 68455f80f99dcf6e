"""How a command ends: in one line for an error that the user can mend, in a traceback for any other."""

import logging
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from cosify.errors import AccuracyDroppedError, InputError, Interrupted

# What gloo and NCCL say when another process has ended or does not answer; their errors have no type of their own.
LOST = re.compile("closed by peer|reset by peer|timed out|timeout|broken pipe|remote worker", re.IGNORECASE)

UNREAD = 128 + 13  # as a program that SIGPIPE ends


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with a one-line message and an exit code if the user can mend the error.

    These are our own errors, and those of the system that name a file.  Any other error is a fault of ours or of a
    library, and keeps its traceback.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where an error has its line
    except Interrupted as stop:
        logging.getLogger("cosify").warning("%s", stop)
        sys.exit(128 + stop.signal_number)
    except KeyboardInterrupt:  # before the first step, or the second Ctrl-C, which does not wait for a checkpoint
        _end("", 128 + signal.SIGINT)
    except (InputError, AccuracyDroppedError) as error:
        _end(f"error: {error}")
    except BrokenPipeError:
        if not _unread(1):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python still writes at its end
        _end("", UNREAD)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # it does not say which file
            raise
        _end(f"error: {error}")
    except RuntimeError as error:
        if not _in_group() or LOST.search(str(error)) is None:
            raise
        _end(
            "error: another process of this run has ended, or has not answered in time (wait_minutes of a training's"
            " recipe); see what it printed and start again, a training with --resume"
            f" ({' '.join(str(error).split())})"
        )
    finally:
        if isinstance(sys.exc_info()[1], Exception) and _in_group():
            _end(traceback.format_exc())


def _unread(pipe: int) -> bool:
    """Return whether nobody reads from a pipe that we write to, as after `| head`."""
    if not hasattr(select, "poll"):  # Windows
        return False
    waiting = select.poll()
    waiting.register(pipe, 0)
    return any(event & select.POLLERR for _, event in waiting.poll(0))


def _in_group() -> bool:
    """Return whether this is one of several processes."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def _end(message: str, code: int = 1) -> None:
    """End this process.  One of several ends at once: otherwise the threads of its group would wait for the others."""
    if not _in_group():
        sys.exit(message if message and code == 1 else code)
    sys.stderr.write(message + "\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def leave_processes() -> None:
    """Leave the process group, if there is one: an interpreter that ends with its threads alive is aborted."""
    if _in_group():
        import torch

        torch.distributed.barrier()  # the main process may still be writing, and is the others' store
        torch.distributed.destroy_process_group()
