"""Our numbers for the paper's tables, read from scripts/results and the cards."""

import json
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent
RESULTS = SCRIPTS / "results"
CARDS = SCRIPTS.parent / "hub_cards"
# Models on the hub of cosify, by row of Tables 3 and 4 and by title in their evaluation.
PUBLISHED = {"ls": "cos_ls", "2 kappa*": "cos_2ls", "60": "cos_60", "softmax": "softmax"}
TITLES = {"ls": "LS", "2 kappa*": "twice", "60": "60", "softmax": "softmax"}
PUBLISHED_SCALE = "the published CIFAR-100 models, ResNet-18 of half of the width, 90 epochs, seed 0"
COMPARISONS = {
    "digits": "C = 10, resnet10t, 0.3 M parameters, 40 epochs",
    "two_digits": "C = 100, ResNet-18 of a quarter of the width, 16 epochs",
    "cifar100_quarter": "CIFAR-100, ResNet-18 of a quarter of the width, 12 epochs",
    "cifar100_wide": "CIFAR-100, resnet10t, d = 512, 10 epochs",
    "tiny_imagenet": "Tiny-ImageNet (48,000 images), resnet10t, d = 512, 8 epochs",
}
ON_GPU = {
    "gpu/nvidia_h200/cifar100_gpu_40": "CIFAR-100, ResNet-34, 40 epochs",
    "gpu/nvidia_h200/cifar100_half_90": "CIFAR-100, ResNet-18 of half of the width, 90 epochs, weight decay 1e-3",
    "gpu/nvidia_h200/cifar100_half_180": "the same, 180 epochs, weight decay 5e-4",
}
EVALUATION = "cifar100_evaluation"
FACES, FACES_LITE0, VIEW2, LONG_TAIL = "celeba_faces", "celeba_faces_lite0", "lfw_view2", "cifar100_lt"
SEEDS = range(3)  # of what has more than one
FACE_HEADS = ("ls", "2kappa", "10", "20", "30", "40", "60")
LITE0_RUNS = [(head, seed) for head in FACE_HEADS for seed in SEEDS if head != "10" or seed == 0]
VIEW2_HEADS = ("ls", "60")
TINY, TINY_HEADS = "cosify_tiny", ("softmax", "ls", "2kappa", "10", "60")
TINY_VARIANTS = ("10-block", "60-block", "60-cold", "60-unfrozen")  # one seed each
TINY_ROWS = {head if head == "softmax" else f"{head}, all": head for head in TINY_HEADS}  # of Table 5
TINY_ROWS |= {"10, last block": "10-block", "60, last block": "60-block"}
FOLDS = range(1, 11)  # of LFW


@dataclass(frozen=True)
class Ours:
    """A column of our numbers.

    Attributes:
        title: data and quantity.
        scale: network and training.
        cells: by row of the paper's table.
    """

    title: str
    scale: str
    cells: Mapping[str, str]


def read_lines(file: str) -> list[dict[str, Any]]:
    """Return the records of a result file; none if there is no such file."""
    path = RESULTS / file
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def estimators() -> list[Ours]:
    """Return accuracy and kappa of the four estimators."""
    columns = []
    for name, scale in COMPARISONS.items():
        rows = {row["head"]: row for row in read(name, "table.json").get("rows", [])}
        for title, key, factor in (("kappa", "kappa", 1), ("accuracy", "accuracy", 100)):
            cells = {head: spread(row, key, factor) for head, row in rows.items() if row[key] is not None}
            columns.append(Ours(f"{name}, {title}", scale, cells))
    return columns


def accuracies() -> list[Ours]:
    """Return accuracy by head, and kappa* of LS."""
    columns = []
    for name, scale in {**COMPARISONS, **ON_GPU}.items():
        rows = {row["head"]: row for row in read(name, "table.json").get("rows", [])}
        cells = {head: spread(row, "accuracy", 100) for head, row in rows.items()}
        if "ls" in rows:
            cells["kappa* of ls"] = spread(rows["ls"], "kappa", 1)
        columns.append(Ours(Path(name).name, scale, cells))
    return columns


def ends() -> list[Ours]:
    """Return kappa of the last epoch."""
    return [column for column in estimators() if column.title.endswith("kappa")]


def diversity() -> list[Ours]:
    """Return angles and ranks."""
    names = {"to own class": "mean_class_angle_deg", "to span W": "mean_span_angle_deg", "rank": "numerical_rank"}
    found = {title: {} for title in (*names, "effective rank")}  # type: dict[str, dict[str, str]]
    for row, model in models().items():
        values = model["scan"]["diversity"]
        for title, key in {**names, "effective rank": "effective_rank"}.items():
            found[title][row] = "-" if values[key] is None else f"{values[key]:.4g}"
    return [Ours(title, PUBLISHED_SCALE, cells) for title, cells in found.items()]


def detections() -> list[Ours]:
    """Return AP with its interval."""
    found: dict[str, dict[str, str]] = {}
    for row, model in models().items():
        for where, scores in {"MISS": model["miss"], **model["ood"]}.items():
            for score, title in (("z_max", "z_max"), ("norm", "||x||"), ("norm_mahalanobis", "||x||/D")):
                one = scores[score]
                text = f"{one['ap']:.3f} [{one['ap_interval']['low']:.3f}, {one['ap_interval']['high']:.3f}]"
                found.setdefault(f"{where}, {title}", {})[row] = text
    return [Ours(title, PUBLISHED_SCALE, cells) for title, cells in found.items()]


def probes() -> list[Ours]:
    """Return top-1 of the linear probe on the published models, with its standard error."""
    found: dict[str, dict[str, str]] = {}
    for row, name in PUBLISHED.items():
        measured = json.loads((CARDS / f"resnet18_cifar.{name}_cifar100" / "evaluation.json").read_text("utf-8"))
        for task, one in measured["models"][0]["transfer"].items():
            text = f"{100 * one['probe']['top1']:.2f} ± {100 * one['standard_error']:.2f}"
            found.setdefault(task, {})[row] = text
    return [Ours(f"CIFAR-100 to {task}", PUBLISHED_SCALE, cells) for task, cells in found.items()]


def cosified() -> list[Ours]:
    """Return accuracy after cosification."""
    results = read("cosify_lite0", "results.json")
    cells = {}
    if results:
        cells["softmax"] = f"{100 * results['base']['test_accuracy']:.2f}"
        for row in results["rows"]:
            blocks = "last block" if row["blocks"] == "1" else row["blocks"]
            cells[f"{row['kappa']:g}, {blocks}"] = f"{100 * row['test_accuracy']:.2f}"
    accuracy = {
        row: over_seeds([run["test_accuracy"] for run in tiny_runs(name)], 100) for row, name in TINY_ROWS.items()
    }
    quantities = {"accuracy": accuracy}
    detected = {row: tiny_detections(name) for row, name in TINY_ROWS.items()}
    for where in ("MISS", "OOD"):
        for score, title in (("z_max", "z_max"), ("norm", "||x||")):
            found = {row: [seed[where][score]["ap"] for seed in seeds] for row, seeds in detected.items()}
            quantities[f"{where}, {title}"] = {row: over_seeds(values, digits=3) for row, values in found.items()}
    backbones = read(TINY, "transfer.json").get("backbones", {})
    for task in next(iter(backbones.values()), [{}])[0]:
        shares = {
            row: [statistics.mean(run[task]["top1"]) for run in backbones.get(name, [])]
            for row, name in TINY_ROWS.items()
        }
        quantities[f"{task}, probe"] = {row: over_seeds(values, 100) for row, values in shares.items()}
    scale = "150 classes of Tiny-ImageNet at 96 px, EfficientNet-Lite0, 20,000 training images once"
    return [
        Ours("CIFAR-100 at 64 px", "EfficientNet-Lite0, 10,000 training images, 2 epochs, seed 0", cells),
        *(
            Ours(f"Tiny, {title}", scale, {row: text for row, text in found.items() if text})
            for title, found in quantities.items()
        ),
    ]


def tiny_runs(name: str) -> list[dict[str, Any]]:
    """Return the last record of each seed's run on Tiny-ImageNet."""
    found = [read_lines(f"{TINY}/{name}-{seed}/metrics.jsonl") for seed in SEEDS]
    return [records[-1] for records in found if records]


def tiny_detections(name: str) -> list[dict[str, Any]]:
    """Return what was measured of each seed's run: errors (MISS) and outliers (OOD), by score."""
    files = sorted(path.name for path in (RESULTS / TINY).glob("evaluation-*.json"))
    models = [model for file in files for model in read(TINY, file)["models"]]
    return [
        {"MISS": model["miss"], "OOD": next(iter(model["ood"].values()))} for model in models if model["model"] == name
    ]


def over_seeds(values: list[float], factor: float = 1, digits: int = 2) -> str:
    """Return mean ± standard deviation and the number of seeds; nothing without values."""
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return spread({"": statistics.mean(values), "_std": deviation, "seeds": values}, "", factor, digits)


def faces() -> list[Ours]:
    """Return verification on LFW: mean and deviation over seeds, or the standard error over folds."""
    scales = {
        FACES: "281 people of CelebA, iresnet18 of a quarter of the width, 48 pixels, 20 epochs; n seeds, mean ±"
        " deviation",
        FACES_LITE0: "281 people of CelebA, EfficientNet-Lite0 from ImageNet weights, 64 pixels, 5 epochs; n seeds,"
        " mean ± deviation",
        VIEW2: "nine folds of LFW train a network for the tenth, iresnet18 as above, 4 epochs, seed 0; mean ± standard"
        " error",
    }
    titles = {FACES: "LFW", FACES_LITE0: "LFW, EfficientNet-Lite0", VIEW2: "LFW, View 2"}
    cells = {
        name: {head: over_seeds(list(lfw_seeds(head, name).values()), 100) for head in FACE_HEADS}
        for name in (FACES, FACES_LITE0)
    }
    cells[VIEW2] = {head: over_folds(fold_accuracies(VIEW2, head)) for head in VIEW2_HEADS}
    return [Ours(titles[name], scale, {k: v for k, v in cells[name].items() if v}) for name, scale in scales.items()]


def lfw_seeds(head: str, name: str = FACES) -> dict[int, float]:
    """Return the accuracy on LFW of each seed that was run on the faces of CelebA."""
    folds = {seed: fold_accuracies(name, head, seed) for seed in SEEDS}
    return {seed: statistics.mean(each) for seed, each in folds.items() if each}


def fold_accuracies(name: str, head: str, seed: int = 0) -> list[float]:
    """Return the accuracy on each fold of LFW; fewer than ten if not all were run."""
    if name != VIEW2:
        found = read(f"{name}/verification/{head}-{seed}", "verification.json")
        return list(found["verification"]["fold_accuracies"]) if found else []
    models = {fold: read(f"{name}/{head}-{fold}", "verification.json") for fold in FOLDS}
    return [each["verification"]["fold_accuracies"][fold - 1] for fold, each in models.items() if each]


def over_folds(accuracies: list[float]) -> str:
    """Return mean and standard error, as LFW gives them; nothing before all folds were run."""
    if len(accuracies) < len(FOLDS):
        return ""
    error = statistics.stdev(accuracies) / math.sqrt(len(FOLDS))
    return f"{100 * statistics.mean(accuracies):.2f} ± {100 * error:.2f}"


def long_tails() -> list[Ours]:
    """Return accuracy on CIFAR-100-LT: all classes, those with few images, and with adjusted logits."""
    rows = {row["head"]: row for row in read(LONG_TAIL, "table.json").get("rows", [])}
    columns = {"all": "plain_accuracy", "many": "plain_many", "medium": "plain_medium", "few": "plain_few"}
    columns |= {"all, logits adjusted": "adjusted_accuracy", "few, logits adjusted": "adjusted_few"}
    found = []
    for title, key in columns.items():
        cells = {head: spread(row, key, 100) for head, row in rows.items()}
        if title == "all" and "ls" in rows:
            cells["kappa* of ls"] = spread(rows["ls"], "kappa", 1)
        found.append(
            Ours(title, "CIFAR-100-LT at an imbalance of 100, ResNet-18 of an eighth of the width, 30 epochs", cells)
        )
    return found


def read(name: str, file: str) -> dict[str, Any]:
    """Return the content of a result file; empty if there is none."""
    path = RESULTS / name / file
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def models() -> dict[str, dict[str, Any]]:
    """Return the evaluated models by row of the paper's tables."""
    rows = {title: row for row, title in TITLES.items()}
    return {rows[model["model"]]: model for model in read(EVALUATION, "evaluation.json").get("models", [])}


def spread(row: Mapping[str, Any], key: str, factor: float, digits: int = 2) -> str:
    """Return mean ± standard deviation and the number of seeds."""
    deviation = row[f"{key}_std"]
    text = f"{factor * row[key]:.{digits}f}" + ("" if deviation is None else f" ± {factor * deviation:.{digits}f}")
    return f"{text} (n={len(row['seeds'])})"


OURS: Mapping[str, Callable[[], list[Ours]]] = {
    "table1": estimators,
    "table2": accuracies,
    "table3": diversity,
    "table4": probes,
    "table5": cosified,
    "table6": faces,
    "table7": long_tails,
    "fig1": ends,
    "fig2": list,
    "fig3": list,
    "fig4": detections,
}
