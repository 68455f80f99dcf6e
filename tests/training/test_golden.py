"""Losses of thirty seeded steps on the digits, at full precision: what moves them shows here.

    python -m pytest tests/training/test_golden.py --update-golden

writes them anew; say in the commit why they moved.
"""

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cosify.training import TrainArguments
from cosify.training.loop import Run
from cosify.training.model import ModelChoice, build_model, preprocessing_of
from cosify.training.progress import bar
from cosify.training.session import Session

FOLDER = Path(__file__).parents[1] / "golden"
STEPS = 30
ELSEWHERE = 0.1  # relative: other kernels round differently, and thirty steps enlarge it
RUNS: dict[str, dict[str, Any]] = {
    "softmax": {"head": "linear"},
    "ls": {},
    "fixed": {"kappa": "20"},
    "trainable": {"kappa": "trainable"},
    "margin": {"cosine_margin": 0.2},
}


def this_platform() -> dict[str, str]:
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__.split("+")[0],
    }


def losses(settings: dict[str, Any], output: Path) -> list[float]:
    # At the usual rate a change of 1e-7 in the weights moves the thirtieth loss by a tenth; at this one by 1e-7 until a
    # sample takes a neighbouring candidate or a ReLU flips, then by up to 4e-2.
    args = TrainArguments(epochs=2, batch_size=64, lr=0.001, tracker="none", output=str(output))
    args = replace(args, **settings)
    choice = ModelChoice.of(args)
    session = Session.open(args, "golden", preprocessing_of(choice, pretrained=False))
    run = Run(session, build_model(choice, args, 10, 1), {}, None)
    found: list[float] = []
    with bar(False, 0, STEPS) as drawn:
        while len(found) < STEPS:
            epoch, first = divmod(len(found), run.steps_per_epoch)
            run.parts.train_mode()
            batches = session.data.train_batches(64, epoch=epoch, seed=args.seed, shard=session.shard, first=first)
            for _ in range(min(STEPS - len(found), run.steps_per_epoch)):
                sums = torch.zeros(3, dtype=torch.float64)
                run.step(batches, epoch, sums, drawn)
                found.append((sums[0] / sums[2]).item())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_losses_are_the_golden_ones(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    found, file = losses(RUNS[name], tmp_path / "run"), FOLDER / f"{name}.json"
    if request.config.getoption("--update-golden"):
        FOLDER.mkdir(exist_ok=True)
        file.write_text(json.dumps({"platform": this_platform(), "losses": found}, indent=1) + "\n")
    golden = json.loads(file.read_text())
    assert len(found) == STEPS
    exact = golden["platform"] == this_platform()
    assert found == (golden["losses"] if exact else pytest.approx(golden["losses"], rel=ELSEWHERE))
