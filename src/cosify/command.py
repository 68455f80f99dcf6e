"""What every training script does around its run: logging, errors, signals, export, figure, summary."""

import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cosify.errors import InputError
from cosify.extras import require_lab

if TYPE_CHECKING:
    from rich.table import Table

    from cosify.training import TrainResult

Arguments = TypeVar("Arguments")
# What gloo and NCCL say where another process is gone or silent; their errors have no type of their own.
LOST = re.compile("closed by peer|reset by peer|timed out|timeout|broken pipe|remote worker", re.IGNORECASE)


def run_script(run: Callable[[Arguments], "TrainResult"], args: Arguments) -> None:
    """Run, export, draw and summarise; end with one line and a fitting exit code where that fails.

    Args:
        run: trains, as `cosify.training.train` does.
        args: its settings.
    """
    set_up_logging()
    with one_line_errors():
        result = run(args)
        if result.is_main:
            export(result)
            show(summary(result, plot(result)))
        leave_processes()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line and a fitting exit code where the message says all.

    That is so for what the user is to mend: our own errors, and the system's about a file that it names.  Any other
    error is a fault of ours, or of a library, and keeps its traceback.
    """
    try:
        require_lab()
    except InputError as error:
        _end(f"error: {error}")
    from cosify.training.cosify_pretrained import AccuracyDroppedError
    from cosify.training.interrupt import Interrupted

    try:
        yield
    except Interrupted as stop:
        logging.getLogger("cosify").warning("%s", stop)
        sys.exit(128 + stop.signal_number)
    except KeyboardInterrupt:  # before the first step, or a second one, which does not wait for a checkpoint
        _end("", 128 + signal.SIGINT)
    except (InputError, AccuracyDroppedError) as error:
        _end(f"error: {error}")
    except OSError as error:
        if error.filename is None and error.errno is not None:  # what failed, but not where
            raise
        _end(f"error: {error}")
    except RuntimeError as error:
        if not _in_group() or LOST.search(str(error)) is None:
            raise
        _end(
            "error: another process of this run has ended, or has not answered for wait_minutes of the recipe; see what"
            f" it printed, then go on with --resume ({' '.join(str(error).split())})"
        )
    finally:
        if isinstance(sys.exc_info()[1], Exception) and _in_group():
            _end(traceback.format_exc())


def _in_group() -> bool:
    """Return whether this is one of several processes."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()


def _end(message: str, code: int = 1) -> None:
    """End this process; one of several at once, for whose ends the threads of its group would wait without end."""
    if not _in_group():
        sys.exit(message if message and code == 1 else code)
    sys.stderr.write(message + "\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_main(main: Callable[[Any], None], kind: type, description: str | None, positional: Sequence[str] = ()) -> None:
    """Read this process' flags into a dataclass and run; end with one line where that fails.

    Args:
        main: takes an object of that kind.
        kind: dataclass of flags.
        description: shown by `--help`.
        positional: flags that words before the first flag stand for, one each, the rest for the last.
    """
    with one_line_errors():
        from cosify.training.parse import parse_arguments

        main(parse_arguments(kind, None, description, positional))
        leave_processes()


def leave_processes() -> None:
    """Leave the group of processes, if there is one: its threads abort an interpreter that ends with them."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()  # the main process may still be writing, and is the others' store
        torch.distributed.destroy_process_group()


def set_up_logging() -> None:
    """Log cosify's lines on the main process, warnings of everything else."""
    from rich import get_console
    from rich.logging import RichHandler

    console = get_console()
    # Off a terminal rich would break lines at 80 columns; on one, it keeps them apart from the progress bar.
    handler: logging.Handler = logging.StreamHandler()
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    is_main = os.environ.get("RANK", "0") == "0"
    logging.getLogger("cosify").setLevel(logging.INFO if is_main else logging.ERROR)


def show(table: "Table") -> None:
    """Print a table."""
    from rich import get_console

    get_console().print(table)


def show_markdown(text: str) -> None:
    """Print markdown, rendered."""
    from rich import get_console
    from rich.markdown import Markdown

    get_console().print(Markdown(text))


def export(result: "TrainResult") -> None:
    """Write `export/`, the model for others."""
    from cosify.hub import save

    save(result.model, result.folder.export, label_names=result.label_names)


def plot(result: "TrainResult") -> Path:
    """Draw the run."""
    from cosify.plots import plot_kappa_trace

    return plot_kappa_trace(result.folder.path)


def summary(result: "TrainResult", figure: Path) -> "Table":
    """Return the table that ends the run."""
    from rich.table import Table

    table = Table(show_header=False, title="result")
    rows: dict[str, Any] = {
        "test accuracy": f"{result.evaluation.accuracy:.2%} of {result.evaluation.num_samples}",
        "test loss": f"{result.evaluation.loss:.4f}",
        "angle to class weight": f"{result.evaluation.mean_angle_deg:.1f} deg",
        "kappa, mean of last epoch": "none" if result.kappa is None else f"{result.kappa.mean:.3f}",
        "at the grid's edges": "none"
        if result.kappa is None
        else f"{result.kappa.low_edge:.1%} lower, {result.kappa.high_edge:.1%} upper",
        "training time": f"{result.seconds:.0f} s",
        "figure": figure,
        "export": result.folder.export,
        "run folder": result.folder.path,
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table
