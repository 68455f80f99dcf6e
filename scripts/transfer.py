"""Compare backbones by linear probes on few images a class, each paired with the first.

    python scripts/transfer.py efficientnet-lite0 RUN --data dtd10 cifar10 --image-size 96 --output runs/transfer
    python scripts/transfer.py --smoke

The images of a class are dealt to folds of ten.  Each fold fits a probe (`cosify.evaluation.linear_probe`), which all
other images test.  A difference is paired by fit and by image, and its variance is that of the mean over fits plus that
of the mean over images.  Names are as in `cosify evaluate`: NAME=MODEL.  Models of one name are runs with other seeds,
over which accuracies and differences are averaged; the variance of this mean is added.  OUTPUT then holds
transfer.json, with the results of each model, transfer.md and the features.
"""

import json
import shlex
import statistics
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cosify.errors import InputError
from cosify.settings import AT_LEAST_1, SEED, Rule, flag

if TYPE_CHECKING:
    from cosify.data import Splits

LEAST_FITS, MOST_FITS = 3, 12
LAMBDAS = tuple(10.0**exponent for exponent in range(4, -4, -1))
Measured = dict[str, Any]  # a `Probed` of cosify.evaluation, and made_of: digests of weights, images and transform
SMOKE = ("resnet18_cifar.cos_ls_cifar100", "resnet18_cifar.cos_60_cifar100")


@dataclass(frozen=True)
class TransferArguments:
    """Settings."""

    models: list[str] = flag(
        [], "Backbones, as MODEL or NAME=MODEL; others are compared with the first. One name, several seeds. Needed."
    )
    data: list[str] = flag([], "Other tasks, DATA or DATA:SPLIT; the split for testing is used. Needed.")
    image_size: int | None = flag(None, "Side in pixels. Default: each backbone's own.", AT_LEAST_1)
    per_class: int = flag(
        10,
        "Images of a class in a fold, a fifth of which choose the penalty. Default 10.",
        Rule(lambda value: value >= 5, "at least 5"),
    )
    limit: int = flag(5000, "Most images of a task, the same number of each class. Default 5000.", AT_LEAST_1)
    seed: int = flag(0, "Seed of the folds. Default 0.", SEED)
    output: str = flag("runs/transfer", "Folder of the results; what it has is not repeated. Default runs/transfer.")
    smoke: bool = flag(False, "Two small backbones on scikit-learn's digits. Default: off.")


def main(args: TransferArguments) -> None:
    """Take features, fit, compare."""
    from cosify.commands.evaluate import titled
    from cosify.console import set_up_logging, show_markdown
    from cosify.data import load_images, short_name
    from cosify.files import write_json, write_whole
    from cosify.training.environment import describe_environment

    set_up_logging()
    if args.smoke:
        args = replace(args, models=list(SMOKE), data=["digits:train"], image_size=32, output=args.output + "-smoke")
    runs: dict[str, list[str]] = {}
    unnamed = []
    for given, (name, model) in zip(args.models, titled(args.models), strict=True):
        runs.setdefault(name, []).append(model)
        unnamed += [name] if given == model else []
    if not runs or any(len(runs[name]) > 1 for name in unnamed):
        raise InputError(f"models is {args.models}, expected one or more, of different names; write NAME=MODEL")
    tasks = [short_name(data) for data in args.data]
    if not tasks or len(set(tasks)) < len(tasks):
        raise InputError(f"data is named {tasks}, expected one or more, of different names")
    images = {task: few(load_images(data), task, args) for task, data in zip(tasks, args.data, strict=True)}
    folder = Path(args.output)
    file = folder / "transfer.json"
    protocol = {"image_size": args.image_size, "per_class": args.per_class, "limit": args.limit, "seed": args.seed}
    empty: dict[str, Any] = {"protocol": protocol, "data": {}, "backbones": {}}
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else empty
    if stored["protocol"] != protocol:
        raise InputError(f"{file} was measured with {stored['protocol']}, expected {protocol}; choose another --output")
    written = {
        "command": shlex.join(["python", "scripts/transfer.py", *sys.argv[1:]]),
        "environment": describe_environment(torch.device("cpu"), 1),
        "protocol": protocol,
        "first": next(iter(runs)),
        "data": stored["data"] | dict(zip(tasks, args.data, strict=True)),
        "backbones": stored["backbones"],
    }
    for name, models in runs.items():
        known, found = stored["backbones"].get(name, []), []
        for seed, model in enumerate(models):
            found.append(measure(model, images, args, known, folder / "features" / f"{name}-{seed}"))
            if len({run[tasks[0]]["made_of"]["model"] for run in found}) < len(found):
                raise InputError(f"{model} and another model named {name!r} are the same, expected another seed")
            written["backbones"][name] = found + known[len(found) :]  # what is not measured again is not lost yet
            write_json(file, written)
        written["backbones"][name] = found
    write_json(file, written)
    text = markdown(list(runs), written["backbones"], tasks, args.per_class)
    write_whole(folder / "transfer.md", text)
    show_markdown(text)


def few(images: "Splits", task: str, args: TransferArguments) -> "Splits":
    """Return images of which each class has the same number, at most `limit` in all, one class after the other."""
    classes, labels = np.unique(np.asarray(images.test[images.label_column][:]), return_inverse=True)
    each = min(int(np.bincount(labels).min()), args.limit // len(classes))
    if each < LEAST_FITS * args.per_class:
        raise InputError(
            f"task {task} has {each} images for each of {len(classes)} classes, expected {LEAST_FITS} folds of"
            f" per_class ({args.per_class}) or more; lower --per-class or raise --limit"
        )
    shuffled = np.random.default_rng(args.seed).permutation(len(labels))
    rows = np.concatenate([shuffled[labels[shuffled] == label][:each] for label in range(len(classes))])
    return replace(images, test=images.test.select(rows))


def measure(
    model: str, tasks: dict[str, "Splits"], args: TransferArguments, known: list[dict[str, Measured]], caches: Path
) -> dict[str, Measured]:
    """Return the accuracy of a backbone's probe in each fold of each task; what is known of the same is taken over."""
    from cosify.evaluation import cache_features, correct_by_probe
    from cosify.evaluation.features import cache_key
    from cosify.evaluation.paired_probes import folds
    from cosify.evaluation.rows import to_tensor
    from cosify.models.network_identity import model_digest
    from cosify.training.opener import open_model

    network, preprocessing = open_model(model, args.image_size)
    digest = model_digest(network)
    same = (run for run in known if any(each["made_of"]["model"] == digest for each in run.values()))
    found = dict(next(same, {}))
    for task, images in tasks.items():
        made_of = asdict(cache_key(network, images, preprocessing))
        if found.get(task, {}).get("made_of") == made_of:
            continue
        cache = cache_features(network, images, preprocessing, caches / task)
        features = to_tensor(cache.embedding)
        classes, labels = to_tensor(cache.labels).unique(return_inverse=True)
        fold = folds(len(labels), len(classes), args.per_class)
        right, accuracies = torch.zeros(len(labels), dtype=torch.int64), []
        for fit in range(min(int(fold.max()) + 1, MOST_FITS)):
            fits, tests = fold == fit, fold != fit
            correct = correct_by_probe(
                features[fits], labels[fits], features[tests], labels[tests],
                num_classes=len(classes), lambdas=LAMBDAS, seed=args.seed,
            )  # fmt: skip
            right[tests] += correct.long()
            accuracies.append(correct.mean().item())
        digits = "".join(f"{count:x}" for count in right.tolist())
        found[task] = {"made_of": made_of, "num_classes": len(classes), "top1": accuracies, "right": digits}
    return found


def markdown(
    names: list[str], backbones: dict[str, list[dict[str, Measured]]], tasks: list[str], per_class: int
) -> str:
    """Return a table of accuracies, and of the differences to the first backbone with their standard errors."""
    from cosify.evaluation.paired_probes import probe_difference

    rows = ["| backbone | seeds | " + " | ".join(f"{task} | to {names[0]}" for task in tasks) + " |"]
    rows.append("| --- " * (2 + 2 * len(tasks)) + "|")
    for name in names:
        cells = [name, str(len(backbones[name]))]
        for task in tasks:
            ours, first = ([run[task] for run in backbones[each]] for each in (name, names[0]))
            cells.append(f"{100 * statistics.mean(share for run in ours for share in run['top1']):.2f}")
            if name == names[0]:
                cells.append("")
                continue
            difference, error = probe_difference(ours, first, per_class)
            cells.append(f"{100 * difference:+.2f} ± {100 * error:.2f}")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    from cosify.console import Command

    Command(main, TransferArguments, __doc__, words=("models",)).run()
