"""From a run and its evaluation to a folder that can be published: weights, card, and the files behind every number."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cosify.files import write_whole
from cosify.hub.card import CardInfo, render
from cosify.hub.facts import Facts
from cosify.hub.metadata import evaluation_results
from cosify.hub.records import (
    ENVIRONMENT,
    EVALUATION,
    FINETUNE,
    METRICS,
    RUN,
    WEIGHTS,
    Finetuned,
    Weights,
    command_of,
    read_json,
)  # fmt: skip
from cosify.models.published import FACTS
from cosify.training.run_folder import read_metrics

CARD, EVALUATION_RESULTS = "README.md", ".eval_results/accuracy.yaml"


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
    weights = run / "export" / WEIGHTS
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
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    for name, source in sources.items():
        shutil.copyfile(source, folder / name)
    write_whole(folder / RUN, json.dumps(config, indent=2) + "\n")


def add_evaluation(evaluation: Path, title: str, folder: Path) -> None:
    """Copy what scripts/evaluate.py found for the weights in a folder, and its picture of calibration.

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
    shutil.copyfile(evaluation / "figures" / "reliability.png", folder / "reliability.png")
    weights = asdict(Weights.of_file(folder / WEIGHTS))
    write_whole(folder / EVALUATION, json.dumps({**record, "models": models, "weights": weights}, indent=2) + "\n")


def add_finetuned(run: Path, folder: Path) -> None:
    """Add what fine-tuning of the weights in a folder gave; a later run on the same task replaces an earlier one.

    Args:
        run: of scripts/finetune.py.
        folder: of the weights that it started from.

    Raises:
        ValueError: if the run has not ended, or started from something else.
    """
    config, epochs = read_json(run / "config.json"), read_metrics(run)
    arguments = config["arguments"]
    if config["script"] != "FinetuneArguments" or Path(arguments["model"]).name != folder.name:
        raise ValueError(
            f"{run} is a {config['script']} of {arguments.get('model')!r}, expected a run of {folder.name}"
        )
    if len(epochs) < arguments["epochs"]:
        raise ValueError(f"{run} has ended {len(epochs)} of {arguments['epochs']} epochs, expected all; resume it")
    task = Path(arguments["data"]).name
    done = Finetuned(
        task=task,
        command=command_of({**config, "arguments": {**arguments, "data": task, "model": folder.name}}),
        head=config["head"],
        epochs=arguments["epochs"],
        accuracy=epochs[-1]["test_accuracy"],
        num_train=config["num_train"],
        num_test=config["num_test"],
        seed=arguments["seed"],
        weights_sha256=Weights.of_file(folder / WEIGHTS).sha256,
    )
    file = folder / FINETUNE
    others = [each for each in read_json(file) if each["task"] != task] if file.is_file() else []
    write_whole(file, json.dumps([*others, asdict(done)], indent=2) + "\n")


def rendered(root: Path) -> dict[Path, str]:
    """Return what the files of `hub_cards` that are made from others hold: cards, and results for leaderboards.

    Raises:
        ValueError: if a folder lacks a file or a fact, or a sibling is missing.
    """
    infos = {path.parent.name: CardInfo.of_folder(path.parent) for path in sorted(root.glob(f"*/{FACTS}"))}
    texts = {}
    for name, info in infos.items():
        missing = [sibling for sibling in info.facts.siblings if sibling not in infos]
        if missing:
            raise ValueError(f"{name} names the siblings {missing}, which {root} does not hold; collect them first")
        texts[root / name / CARD] = render(info, [infos[sibling] for sibling in info.facts.siblings])
        texts[root / name / EVALUATION_RESULTS] = evaluation_results(info)
    return texts


def render_all(root: Path) -> list[Path]:
    """Write what `rendered` returns; return the files."""
    texts = rendered(root)
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        write_whole(path, text)
    return list(texts)


def _half(value: Tensor) -> Tensor:
    """Return a matrix or a filter in float16; vectors, such as running variances, need their range."""
    return value.to(torch.float16) if value.is_floating_point() and value.ndim >= 2 else value
