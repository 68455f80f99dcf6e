"""Make a folder to publish from a run and its evaluation: weights, card, and the files behind every number."""

import json
import re
import shutil
import statistics
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from cosify.cards.card import render
from cosify.cards.command_lines import (
    comparison_command,
    evaluation_command,
    run_for_others,
    training_command,
    verification_command,
)
from cosify.cards.facts import Facts
from cosify.cards.info import CardInfo
from cosify.cards.metadata import evaluation_results, verification_results
from cosify.cards.records import AgainstStart, Finetuned, Measured, Verified, read_json
from cosify.cards.same_data import refuse_other_data
from cosify.data import Preprocessing, Splits, load_splits
from cosify.errors import InputError
from cosify.evaluation import FeatureCache, Verification, cache_features
from cosify.evaluation.json_records import from_json
from cosify.evaluation.paired_probes import probe_difference
from cosify.evaluation.split_half import measured_confidence
from cosify.files import left_aside, sha256_of, write_whole
from cosify.folders import foreign_files, new_folder_beside, put_in_place, remove_own
from cosify.hub import load
from cosify.hub.contents import (
    CARD,
    ENVIRONMENT,
    EVALUATION,
    EVALUATION_RESULTS,
    FACTS,
    FINETUNED,
    METRICS,
    PUBLISHED,
    RELIABILITY,
    RUN,
    TRACE,
    TRANSFER,
    VERIFICATION,
    VERIFICATION_RESULTS,
)
from cosify.hub.export import write_model
from cosify.hub.publish import check_repo_id
from cosify.integrations import compat
from cosify.models.binding import CONFIG, WEIGHTS
from cosify.models.network_identity import model_digest
from cosify.models.published import backbones
from cosify.plots.reliability import plot_reliability
from cosify.training.opener import open_model
from cosify.training.run_folder import read_metrics


def collect(run: Path, facts: Path, folder: Path, *, half: bool = False) -> None:
    """Fill a folder with what a card needs of a run.  An earlier folder of that name is replaced at the end.

    Args:
        run: folder of a training run with an export.
        facts: YAML file, see `Facts`.
        folder: to be filled, named `architecture.tag` as the model is to be called.
        half: store matrices and filters in float16, which halves the file.  Labels of the run's test split are
            compared, and the card says how many changed.  Then evaluate the folder, not the run.

    Raises:
        ValueError: if a file or a fact is missing, or the name does not fit.
    """
    known, text = Facts.read(facts), facts.read_text(encoding="utf-8")
    config, export = read_json(run / "config.json"), run / "export"
    known.check_start(config)
    sources = {
        METRICS: run / "metrics.jsonl",
        ENVIRONMENT: run / "environment.json",
        TRACE: run / "kappa_trace.png",
    }
    needed = (export / CONFIG, export / WEIGHTS, *sources.values())
    missing = [str(path) for path in needed if not path.is_file()]
    if missing:
        raise InputError(f"{', '.join(missing)} is missing, expected a run of a training script that has ended")
    description = read_json(export / CONFIG)
    check_name(folder.name, description["architecture"])
    check_replaceable(folder)
    for left in left_aside(folder) if folder.exists() else ():  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    new = new_folder_beside(folder)
    try:
        for name, source in sources.items():
            shutil.copyfile(source, new / name)
        (new / FACTS).write_text(text, encoding="utf-8")
        tensors = {name: _half(value) if half else value for name, value in load_file(export / WEIGHTS).items()}
        write_model(new, description, tensors)
        published = run_for_others(config, data=known.dataset_id, model=known.base_model)
        if half:
            arguments = {name: config["arguments"][name] for name in ("data", "image_column", "label_column")}
            test = load_splits(**arguments).only("test")
            changed = int((predicted_labels(export, test) != predicted_labels(new, test)).sum())
            published["half_precision"] = {"labels_changed": changed, "num_images": len(test.test)}
        (new / RUN).write_text(json.dumps(published, indent=2) + "\n", encoding="utf-8")
        check_replaceable(folder)
        old = put_in_place(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if old is not None:
        remove_own(old, PUBLISHED)


def check_replaceable(folder: Path) -> None:
    """Raise a ValueError if the path is taken by a file, a folder not of ours, or one with foreign files."""
    if not folder.exists() and not folder.is_symlink():
        return
    found = foreign_files(folder, PUBLISHED) if folder.is_dir() and not folder.is_symlink() else [folder.name]
    if found or (any(folder.iterdir()) and not (folder / FACTS).is_file()):
        raise InputError(
            f"{folder} holds {found[:5] or sorted(path.name for path in folder.iterdir())[:5]}, expected a new or empty"
            " folder, or nothing but what cosify card has collected; move it away, or choose another --name"
        )


def check_name(name: str, architecture: str) -> None:
    """Raise a ValueError unless a name is `architecture.tag` and timm has no model of that name."""
    if re.fullmatch(rf"{re.escape(architecture)}\.[A-Za-z0-9_-]+", name) is None:
        raise InputError(f"the name is {name!r}, expected {architecture}.TAG with a tag of letters, digits and _")
    if name in compat.require(compat.CFGS) and name not in backbones():
        raise InputError(f"the name {name!r} is that of a model of timm's, expected a new one; choose another tag")


def predicted_labels(folder: Path, images: Splits) -> NDArray[np.int64]:
    """Return the labels [N] that the model in a folder gives to a test split."""
    model = load(folder)
    with TemporaryDirectory(prefix="cosify-collect-") as scratch:
        return np.array(cache_features(model, images, Preprocessing.of_pretrained(model), scratch).predictions)


def add_evaluation(evaluation: Path, title: str, folder: Path) -> None:
    """Copy what `cosify evaluate` found for the weights in a folder, and draw their calibration.

    Args:
        evaluation: its output folder, with the feature caches.
        title: of the model in that evaluation.
        folder: of the weights that were evaluated.

    Raises:
        ValueError: if the evaluation has no such model, is of other weights or other data than the folder's run, or its
            numbers are not those of its feature caches.
    """
    record = read_json(evaluation / "evaluation.json")
    models = [model for model in record["models"] if model["model"] == title]
    if len(models) != 1:
        titles = [model["model"] for model in record["models"]]
        raise InputError(f"the evaluation {evaluation} has the models {titles}, expected {title!r} among them")
    folders = record.get("features", record.get("banks", {}))  # earlier versions called caches banks
    try:
        cache = FeatureCache.open(evaluation / folders[title] / "test")
    except (KeyError, FileNotFoundError) as error:
        raise InputError(
            f"{evaluation} has lost its feature caches, expected them beside the results; evaluate again"
        ) from error
    if cache.info.key.model != model_digest(load(folder)):
        raise InputError(f"{title!r} in {evaluation} is another model than {folder}; evaluate the folder itself")
    stated, counted = (models[0]["num_test"], models[0]["accuracy"]), (len(cache), float(cache.correct.mean()))
    if stated != counted:
        raise InputError(
            f"evaluation.json in {evaluation} says {stated[1]:.4f} of {stated[0]} images for {title!r} and its feature"
            f" cache {counted[1]:.4f} of {counted[0]}, expected the same: an evaluation was cut short there; evaluate"
            " again with --overwrite"
        )
    refuse_other_data(evaluation, read_json(folder / RUN), record, cache.info)
    command = evaluation_command(record, folder.name)
    plot_reliability({folder.name: measured_confidence(cache)}, folder / RELIABILITY)
    published = {
        "command": command,
        "environment": record["environment"],
        "measured": asdict(Measured.of_folder(folder)),
        "models": models,
    }
    write_whole(folder / EVALUATION, json.dumps(published, indent=2) + "\n")


def add_finetuned(run: Path, folder: Path) -> None:
    """Add the result of fine-tuning the weights in a folder; it replaces an earlier result on the same task.

    Args:
        run: of `cosify finetune`.
        folder: of the weights that it started from.

    Raises:
        ValueError: if the run has not ended, streamed its data, or started from something else.
    """
    config, epochs = read_json(run / "config.json"), read_metrics(run)
    if config.get("start_digest") != model_digest(load(folder, head="linear")):
        raise InputError(f"{run} did not start from the weights in {folder}; run cosify finetune {folder} DATA")
    stopped = config["arguments"].get("early_stop_evaluations") is not None and (run / "export").is_dir()
    if len(epochs) < config["arguments"]["epochs"] and not stopped:
        raise InputError(f"{run} has ended {len(epochs)} of {config['arguments']['epochs']} epochs; resume it")
    if "test_accuracy" not in epochs[-1]:
        raise InputError(
            f"{run} has no evaluation of its last epoch, {epochs[-1]['epoch']}, expected one: an earlier version left"
            " it out after an early stop within an epoch; fine-tune again with --overwrite"
        )
    if config["num_test"] is None:
        raise InputError(
            f"{run} streamed its data and does not know how many images tested it, expected a number for the error of"
            " its accuracy; fine-tune without streaming"
        )
    for_others = run_for_others(config, model=folder.name)
    task = for_others["arguments"]["data"]
    done = Finetuned(
        task=task,
        command=training_command(for_others),
        head=config["head"],
        epochs=epochs[-1]["epoch"],
        accuracy=epochs[-1]["test_accuracy"],
        num_train=config["num_train"],
        num_test=config["num_test"],
        seed=config["arguments"]["seed"],
        weights_sha256=sha256_of(folder / WEIGHTS),
    )
    _add(folder / FINETUNED, "task", asdict(done))


def add_transfer(result: Path, name: str, folder: Path) -> None:
    """Add how probes on few images compare with those of the start; they replace earlier ones on the same tasks.

    Args:
        result: output folder of scripts/transfer.py, whose first backbone is the weights that training began with.
        name: of the model there.
        folder: of the model.

    Raises:
        ValueError: if the result has no such model, or it or the start is of other weights, or their images differ.
    """
    record, facts = read_json(result / TRANSFER), Facts.read(folder / FACTS)
    backbones, size = record["backbones"], record["protocol"]["image_size"]
    start = record["first"]
    if name not in backbones or name == start:
        others = [each for each in backbones if each != start]
        raise InputError(f"{result} compares {others} with {start!r}, expected {name!r} among them")
    digest = model_digest(open_model(str(folder), size)[0])
    own = [run for run in backbones[name] if all(each["made_of"]["model"] == digest for each in run.values())]
    if not own:
        raise InputError(f"{name!r} in {result} is another model than {folder}; compare the folder itself")
    if facts.base_model is not None:
        digest = model_digest(open_model(facts.base_model, size)[0])
        if any(each["made_of"]["model"] != digest for run in backbones[start] for each in run.values()):
            raise InputError(f"{start!r}, the first in {result}, is not {facts.base_model}; compare with that")
    begun_with = facts.base_model or start
    for task, probed in own[0].items():
        first = [run[task] for run in backbones[start] if task in run]
        if not first or any(each["made_of"]["data"] != probed["made_of"]["data"] for each in first):
            raise InputError(f"{start!r} in {result} was not measured on the same {task}; compare both anew")
        done = AgainstStart(
            task=task,
            command=comparison_command(record["protocol"], begun_with, folder.name, record["data"][task]),
            begun_with=begun_with,
            top1=statistics.mean(probed["top1"]),
            start=statistics.mean(share for each in first for share in each["top1"]),
            standard_error=probe_difference([probed], first, record["protocol"]["per_class"])[1],
            per_class=record["protocol"]["per_class"],
            num_images=len(probed["right"]),
            weights_sha256=sha256_of(folder / WEIGHTS),
        )
        _add(folder / TRANSFER, "task", asdict(done))


def add_verification(result: Path, folder: Path, dataset_id: str | None = None) -> None:
    """Add what `cosify verify` found for the weights in a folder; it replaces an earlier result on the same pairs.

    Args:
        result: its output folder.
        folder: of the weights.
        dataset_id: of the pairs on the hub, for leaderboards; None if they are not there.

    Raises:
        ValueError: if the result is of other weights than the folder's, or the id is none.
    """
    record = read_json(result / VERIFICATION)
    if record["model"] != model_digest(load(folder)):
        raise InputError(f"{result} is of another model than {folder}; run cosify verify {folder} DATA")
    if dataset_id is not None:
        check_repo_id(dataset_id)
    done = Verified(
        data=record["data"],
        dataset_id=dataset_id,
        command=verification_command(record["arguments"], folder.name),
        num_pictures=record["num_pictures"],
        found=from_json(Verification, record["verification"]),
        weights_sha256=sha256_of(folder / WEIGHTS),
    )
    _add(folder / VERIFICATION, "data", asdict(done))


def _add(file: Path, key: str, entry: dict[str, Any]) -> None:
    """Add an entry to a JSON list; it replaces the one with the same `key`."""
    others = [each for each in read_json(file) if each[key] != entry[key]] if file.is_file() else []
    write_whole(file, json.dumps([*others, entry], indent=2) + "\n")


def rendered(folder: Path) -> dict[Path, str]:
    """Return the files of a folder that are made from its other files, and their text: card and leaderboard results.

    Raises:
        ValueError: if the folder or one of its siblings, beside it, lacks a file or a fact.
    """
    info = CardInfo.of_folder(folder)
    siblings = [info if name == info.name else CardInfo.of_folder(folder.parent / name) for name in info.facts.siblings]
    texts = {
        CARD: render(info, siblings),
        EVALUATION_RESULTS: evaluation_results(info),
        VERIFICATION_RESULTS: verification_results(info),
    }
    return {folder / name: text for name, text in texts.items() if text}


def render_all(root: Path) -> list[Path]:
    """Write the files of `rendered` for each folder with facts; return their paths.

    Raises:
        ValueError: if there is none, or one cannot be rendered; then nothing is written.
    """
    folders = sorted(path.parent for path in root.glob(f"*/{FACTS}"))
    if not folders:
        raise InputError(f"{root} has no folder with a {FACTS}, expected what cosify card --name NAME collects")
    texts = {path: text for folder in folders for path, text in rendered(folder).items()}
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        write_whole(path, text)
    return list(texts)


def _half(value: Tensor) -> Tensor:
    """Return a matrix or filter in float16.  Vectors, such as running variances, stay: they need the range."""
    return value.to(torch.float16) if value.is_floating_point() and value.ndim >= 2 else value
