"""Steps, an epoch's end and an evaluation of every policy on a device without float64, against the CPU."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator
from torch.func import functional_call

from cosify.functional import float64, kappa_grid, ls, ls_kappa
from cosify.heads import CosineLinear
from cosify.training import TrainArguments
from cosify.training.loop import Run
from cosify.training.model import ModelChoice, build_model, preprocessing_of
from cosify.training.progress import bar
from cosify.training.session import Session
from tests.no_float64 import DEVICE, StandIn, stand_in_device  # before the first backward pass: it starts its threads

RUNS: dict[str, dict[str, Any]] = {
    "softmax": {"head": "linear", "label_smoothing": 0.1, "balance": "loss"},
    "ls": {},
    "margin": {"cosine_margin": 0.2},
    **{name: {"kappa": name} for name in ("ml", "rule", "trainable", "adacos", "adacos-dynamic", "20")},
}
STEPS = 3


def losses(settings: dict[str, Any], folder: Path, on_main: bool) -> list[float]:
    """Return the loss of each step, the mean kappa, and the loss of the test split."""
    # Augmentation draws from a generator on the device, which the stand-in has not.  Steps of the usual rate would
    # enlarge rounding.
    args = TrainArguments(data="synthetic", batch_size=64, augment="none", lr=0.001, tracker="none", output=str(folder))
    args = replace(args, **settings)
    choice = ModelChoice.of(args)
    session = Session.open(args, "run", preprocessing_of(choice, pretrained=False))
    assert session.accelerator.device.type == ("cpu" if on_main else DEVICE.type)
    run = Run(session, build_model(choice, args, len(session.data.label_names), 1), {}, None)
    batches = session.data.train_batches(64, epoch=0, seed=0, shard=session.shard)
    run.parts.train_mode()
    sums = torch.zeros(3, dtype=float64.sum_dtype(session.accelerator.device), device=session.accelerator.device)
    with bar(False, 0, STEPS) as drawn:
        for _ in range(STEPS):
            run.step(batches, 0, sums, drawn)
    loss, _, samples = run.finite.fetch(sums)
    kappa = run.kappas.summary()
    run.kappas.load_state(run.kappas.state(session.all_sum, 1))
    return [loss / samples, 0.0 if kappa is None else kappa.mean + kappa.median, run.selection.measure().loss]


def compare(name: str, found: list[float], expected: list[float]) -> None:
    """Fail unless the numbers are those of the CPU."""
    for one, other in zip(found, expected, strict=True):
        assert abs(one - other) <= 1e-4 * max(1.0, abs(other)), (name, found, expected)


def main(folder: Path) -> None:
    """Do all runs on the CPU, then there."""
    torch.accelerator.is_available = lambda: False  # the stand-in counts as one, which accelerate would take
    with patch.dict(ls.GRID_WORK, {"cpu": 0}):
        expected = {name: losses(RUNS[name], folder / f"cpu-{name}", on_main=True) for name in RUNS}
    has_float64 = float64.has_float64
    float64.has_float64 = lambda device: device.type != DEVICE.type and has_float64(device)
    # The search with its float64 comparisons, as of large problems.
    with stand_in_device(), patch.object(Accelerator, "device", DEVICE), patch.dict(ls.GRID_WORK, {"cuda": 0}):
        try:
            torch.zeros(1, dtype=torch.float64, device=DEVICE)
        except TypeError:
            pass
        else:
            raise AssertionError("the stand-in takes float64")
        for name, settings in RUNS.items():
            compare(name, losses(settings, folder / f"there-{name}", on_main=False), expected[name])
        # Ties, extreme rows and small blocks: what is left to float64.
        generator = torch.Generator().manual_seed(0)
        embedding, weight = (torch.randn(rows, 16, generator=generator) for rows in (32, 300))
        embedding[0], embedding[1], embedding[2] = 1e-30 * embedding[0], 1e30 * embedding[1], 0.0
        weight[1] = weight[0]
        there = ls_kappa(embedding.to(DEVICE), weight.to(DEVICE), chunk=64)
        assert isinstance(there, StandIn)
        assert torch.equal(there.cpu(), ls_kappa(embedding, weight))
        assert torch.equal(kappa_grid(device=DEVICE).cpu(), kappa_grid())
        # A head that has seen a batch on the CPU: where the next search starts has not moved with it.
        head = CosineLinear(16, 300)
        head(embedding)
        kappa = head.last_kappa
        moved = {"weight": weight, "kappa": head.kappa, "embedding_norm": head.embedding_norm}
        functional_call(head, {name: value.detach().to(DEVICE) for name, value in moved.items()}, embedding.to(DEVICE))
        assert kappa is not head.last_kappa is not None
        assert torch.equal(head.last_kappa.cpu(), ls_kappa(embedding, weight))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
