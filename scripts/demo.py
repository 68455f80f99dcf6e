"""Show in about a minute what cosify does, on the CPU and without any download.

    python scripts/demo.py

It trains three small networks on scikit-learn's digits: with the stock softmax head, with the self-estimating
temperature, and with kappa = 1.  It prints accuracy, kappa and angles.  Then a fresh process opens the exported model
with timm but without cosify, and the labels are compared.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cosify.settings.training import TrainArguments

if TYPE_CHECKING:
    from cosify.training import TrainResult

EPOCHS = 20
RUNS = {
    "softmax": TrainArguments(head="linear", epochs=EPOCHS),
    "cosine, kappa by LS": TrainArguments(kappa="ls", epochs=EPOCHS),
    "cosine, kappa = 1": TrainArguments(kappa="1", epochs=EPOCHS),
}
LS_RUN = "cosine, kappa by LS"

# This program runs without cosify.  Its images are those of the files; the export names their preprocessing.
STOCK_READER = """
import sys
import numpy, timm, torch
from PIL import Image

folder, file = sys.argv[1:]
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model), is_training=False)
images = [transform(Image.fromarray(pixels)) for pixels in numpy.load(file)]
with torch.no_grad():
    labels = model(torch.stack(images)).argmax(dim=1)
assert "cosify" not in sys.modules
print(*labels.tolist())
"""


def main() -> None:
    """Train, compare, export, read back."""
    import logging
    from dataclasses import replace

    import torch
    from rich import get_console

    from cosify.training import train

    torch.set_num_threads(1)  # for so small images a second thread gains nothing, and loses much if its core is busy
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    console = get_console()
    with tempfile.TemporaryDirectory(prefix="cosify-demo-") as folder:
        results = {}
        for number, (name, args) in enumerate(RUNS.items()):
            console.print(f"training {name}: {EPOCHS} epochs on 1,200 digits ...")
            results[name] = train(replace(args, output=str(Path(folder) / str(number))))
        console.print(table(results))
        agree, total = compare_with_stock_timm(results[LS_RUN], Path(folder))
    console.print(f"fresh process, stock timm without cosify: {agree} of {total} labels are the same")
    if agree != total:
        sys.exit(1)


def table(results: dict[str, "TrainResult"]) -> object:
    """Return the comparison as a rich table."""
    from rich.table import Table

    shown = Table(
        title=f"digits, {EPOCHS} epochs, seed 0", caption="kappa: mean over the last epoch's training samples"
    )
    shown.add_column("head")
    for column in ("test accuracy", "kappa*", "angle to class weight", "time"):
        shown.add_column(column, justify="right")
    for name, result in results.items():
        shown.add_row(
            name,
            f"{result.evaluation.accuracy:.1%}",
            "-" if result.kappa is None else f"{result.kappa.mean:.2f}",
            f"{result.evaluation.mean_angle_deg:.1f} deg",
            f"{result.seconds:.0f} s",
        )
    return shown


def compare_with_stock_timm(result: "TrainResult", folder: Path) -> tuple[int, int]:
    """Return how many test labels a process without cosify gets as this one does, and how many there are."""
    import numpy as np

    import cosify.hub
    from cosify.data import load_splits
    from cosify.training import predict_labels

    cosify.hub.save(result.model, result.folder.export, label_names=result.label_names)
    pixels = np.stack([np.asarray(image) for image in load_splits("digits").test["image"]])
    np.save(folder / "digits.npy", pixels)
    ours = predict_labels(result)
    command = [sys.executable, "-c", STOCK_READER, str(result.folder.export), str(folder / "digits.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"stock timm could not read the export:\n{done.stderr}")
    stock = np.array(done.stdout.split(), dtype=np.int64)
    return int((stock == ours.numpy()).sum()), len(ours)


if __name__ == "__main__":
    main()
