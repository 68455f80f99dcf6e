"""Open a saved folder as its users would: in timm and transformers, each with the plugin and without."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cosify.errors import InputError
from cosify.files import written_aside
from cosify.models import cifar_resnet

READERS = ("timm with cosify", "transformers with cosify", "timm alone", "transformers alone")

# Each runs in a process of its own: once cosify is imported, timm and transformers are no longer stock.
_CODE = """
import sys
folder, images, labels, reader = sys.argv[1:]
if "with cosify" in reader:
    import cosify
import torch
from safetensors.torch import load_file, save_file
if reader.startswith("timm"):
    import timm
    model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
else:
    from transformers import AutoModelForImageClassification
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
with torch.no_grad():
    output = model(load_file(images)["images"])
save_file({"labels": getattr(output, "logits", output).argmax(1)}, labels)
assert "with cosify" in reader or "cosify" not in sys.modules
"""


def check_readers(folder: Path, images: Tensor, expected: Tensor, readers: tuple[str, ...] = READERS) -> None:
    """Raise unless every reader gives the expected labels.

    Args:
        folder: with config.json and model.safetensors.
        images: normalised, [B, channels, H, W].
        expected: labels [B].
        readers: which of `READERS`.

    Raises:
        ValueError: if a reader fails; the message says which one, and how.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(prefix="cosify-readers-") as scratch:
        pictures, labels = Path(scratch, "images.safetensors"), Path(scratch, "labels.safetensors")
        with written_aside(pictures) as aside:
            save_file({"images": images.detach().cpu().contiguous()}, aside)
        for reader in readers:
            command = [sys.executable, "-c", _CODE, str(folder.resolve()), str(pictures), str(labels), reader]
            done = subprocess.run(command, env=environment, cwd=scratch, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
                raise InputError(f"{reader} cannot open {folder}: {said}; save the model again with cosify.save")
            wrong = int((load_file(labels)["labels"] != expected).sum())
            if wrong > 0:
                raise InputError(
                    f"{reader} gives {wrong} of {len(expected)} images of {folder} another label than the model,"
                    " expected the same; save the model again with cosify.save"
                )


def probe_images(input_size: tuple[int, int, int]) -> Tensor:
    """Return random images to compare labels on, [32, channels, H, W]."""
    return torch.randn(32, *input_size, generator=torch.Generator().manual_seed(0))


def is_own_architecture(config: dict[str, Any]) -> bool:
    """Return whether timm alone does not know the architecture: `resnet18_cifar` and `resnet34_cifar` are ours."""
    return hasattr(cifar_resnet, str(config.get("architecture")))
