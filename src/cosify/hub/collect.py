"""From a run and its evaluation to a folder that can be published: weights, card, and the files behind every number."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cosify.files import write_whole
from cosify.hub.card import ENVIRONMENT, EVALUATION, FACTS, METRICS, RUN, CardInfo, Facts, read_json, render


def collect(run: Path, facts: Path, folder: Path, *, half: bool = False) -> None:
    """Copy what a card needs of a run.

    Args:
        run: of the training, with an export.
        facts: YAML file, see `Facts`.
        folder: to be filled, named as the model is to be called.
        half: store matrices and filters in float16, half the size.  A few labels may change: evaluate the folder, not
            the run.

    Raises:
        ValueError: if a file or a fact is missing.
    """
    known = Facts.read(facts)
    config = read_json(run / "config.json")
    config["arguments"]["data"] = known.dataset_id  # where the data lay here says nothing
    weights = run / "export" / "model.safetensors"
    sources = {
        "config.json": run / "export" / "config.json",
        METRICS: run / "metrics.jsonl",
        ENVIRONMENT: run / "environment.json",
        "kappa_trace.png": run / "kappa_trace.png",
        FACTS: facts,
    }
    missing = [str(path) for path in (weights, *sources.values()) if not path.is_file()]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing, expected a run of a training script that has ended")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: _half(value) if half else value for name, value in load_file(weights).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name, source in sources.items():
        shutil.copyfile(source, folder / name)
    write_whole(folder / RUN, json.dumps(config, indent=2) + "\n")


def add_evaluation(evaluation: Path, title: str, folder: Path) -> None:
    """Copy what scripts/evaluate.py found for the weights in a folder.

    Args:
        evaluation: its output.
        title: of the model there.
        folder: of the weights that were evaluated.

    Raises:
        ValueError: if the evaluation has no such model.
    """
    record = read_json(evaluation / "evaluation.json")
    models = [model for model in record["models"] if model["model"] == title]
    if len(models) != 1:
        titles = [model["model"] for model in record["models"]]
        raise ValueError(f"the evaluation {evaluation} has the models {titles}, expected {title!r} among them")
    write_whole(folder / EVALUATION, json.dumps({**record, "models": models}, indent=2) + "\n")


def render_all(root: Path) -> list[Path]:
    """Write README.md of every folder in `hub_cards`; return the cards.

    Raises:
        ValueError: if a folder lacks a file or a fact, or a sibling is missing.
    """
    infos = {path.parent.name: CardInfo.of_folder(path.parent) for path in sorted(root.glob(f"*/{FACTS}"))}
    written = []
    for name, info in infos.items():
        missing = [sibling for sibling in info.facts.siblings if sibling not in infos]
        if missing:
            raise ValueError(f"{name} names the siblings {missing}, which {root} does not hold; collect them first")
        text = render(info, [infos[sibling] for sibling in info.facts.siblings])
        write_whole(root / name / "README.md", text)
        written.append(root / name / "README.md")
    return written


def _half(value: Tensor) -> Tensor:
    """Return a matrix or a filter in float16; vectors, such as running variances, need their range."""
    return value.to(torch.float16) if value.is_floating_point() and value.ndim >= 2 else value
