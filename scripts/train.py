"""Train an image classifier whose softmax temperature estimates itself.

Nothing named, it trains on the digits of scikit-learn, on the CPU or one GPU, in about half a minute:

    python scripts/train.py

See that everything works, in seconds:

    python scripts/train.py --smoke

Other heads: the stock softmax, a fixed kappa, a trainable one:

    python scripts/train.py --head linear
    python scripts/train.py --kappa 20
    python scripts/train.py --kappa trainable

Your own images, as train/CLASS/*.png and test/CLASS/*.png, or as train.parquet and test.parquet, and any timm model:

    python scripts/train.py --data FOLDER --model resnet18_cifar --model-kwargs width=0.25 --epochs 10

Several GPUs of this machine, and several processes on the CPU:

    accelerate launch --multi_gpu --num_processes 2 scripts/train.py
    torchrun --nproc_per_node 2 scripts/train.py

The run folder then holds config.json, metrics.jsonl, environment.json, checkpoints/, kappa_trace.png, and in export/
the model: with a cosine head and a stock architecture, stock timm and stock transformers open it too.
"""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cosify.training.arguments import TrainArguments, parse_arguments

if TYPE_CHECKING:
    from rich.table import Table

    from cosify.training import TrainResult


def main(args: TrainArguments) -> None:
    """Train, export, draw, summarise."""
    from rich import get_console
    from rich.logging import RichHandler

    from cosify.training import train

    console = get_console()
    # Off a terminal rich would break lines at 80 columns; on one, it keeps them apart from the progress bar.
    handler: logging.Handler = logging.StreamHandler()
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    is_main = os.environ.get("RANK", "0") == "0"
    logging.getLogger("cosify").setLevel(logging.INFO if is_main else logging.ERROR)
    try:
        result = train(args)
    except (OSError, ValueError) as error:  # of the user's making: the message says all
        sys.exit(f"error: {error}")
    if result.is_main:
        export(result, args)
        console.print(summary(result, plot(result)))


def export(result: "TrainResult", args: TrainArguments) -> None:
    """Write `export/`, the model for others."""
    if args.head == "linear":
        from timm.models import save_for_hf

        folder = str(result.folder.export)
        save_for_hf(
            result.model, folder, model_config={"label_names": list(result.label_names)}, safe_serialization=True
        )
        return
    import cosify.hub

    cosify.hub.save(result.model, result.folder.export, label_names=result.label_names)


def plot(result: "TrainResult") -> Path:
    """Draw the run."""
    from cosify.plots import plot_kappa_trace

    return plot_kappa_trace(result.folder.path)


def summary(result: "TrainResult", figure: Path) -> "Table":
    """Return the table that ends the run."""
    from rich.table import Table

    table = Table(show_header=False, title="result")
    rows = {
        "test accuracy": f"{result.evaluation.accuracy:.2%} of {result.evaluation.num_samples}",
        "test loss": f"{result.evaluation.loss:.4f}",
        "angle to class weight": f"{result.evaluation.mean_angle_deg:.1f} deg",
        "kappa, mean of last epoch": "none" if result.kappa is None else f"{result.kappa.mean:.3f}",
        "time": f"{result.seconds:.0f} s",
        "figure": str(figure),
        "export": str(result.folder.export),
        "run folder": str(result.folder.path),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


if __name__ == "__main__":
    main(parse_arguments(description=__doc__))
