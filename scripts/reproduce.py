"""Put the paper's numbers and ours side by side, with scale, seeds and errors; what was not run is marked.

    python scripts/reproduce.py all
    python scripts/reproduce.py table6 table7
    python scripts/reproduce.py fig1 --output runs/reproduce

Numbers are read from scripts/results.  If a file is missing, the commands that make it are shown; --run runs them, on
the data that --cifar100, --cifar10, --omniglot and --lfw name (folders or hub ids).  On a CPU that takes hours.
"""

import json
import logging
import math
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosify.errors import InputError
from cosify.settings import flag

logger = logging.getLogger("cosify")

SCRIPTS = Path(__file__).parent
RESULTS = SCRIPTS / "results"
CARDS = SCRIPTS.parent / "hub_cards"
PUBLISHED = {"ls": "cos_ls", "2 kappa*": "cos_2ls", "60": "cos_60", "softmax": "softmax"}  # by row of Table 4
COMPARISONS = {
    "digits": "C = 10, resnet10t, 0.3 M parameters, 40 epochs",
    "two_digits": "C = 100, ResNet-18 of a quarter of the width, 16 epochs",
    "cifar100_quarter": "CIFAR-100, ResNet-18 of a quarter of the width, 12 epochs",
}
EVALUATION = "cifar100_evaluation"
FACES, FACES_LITE0, VIEW2, LONG_TAIL = "celeba_faces", "celeba_faces_lite0", "lfw_view2", "cifar100_lt"
FACE_HEADS = ("ls", "2kappa", "10", "20", "30", "40", "60")
VIEW2_HEADS = ("ls", "60")
TINY, TINY_HEADS = "cosify_tiny", ("softmax", "ls", "2kappa", "10", "60")
FOLDS = range(1, 11)  # of LFW
HEADS = ("ls", "softmax", "20", "60")  # of the evaluation
RUN = "runs/reproduce/{head}"


@dataclass(frozen=True)
class ReproduceArguments:
    """Settings."""

    targets: list[str] = flag(["all"], "Any of table1 to table7 and fig1 to fig4, or all. Default: all.")
    run: bool = flag(False, "Run what is missing. Default: show the commands.")
    cifar100: str = flag("uoft-cs/cifar100", "CIFAR-100: folder or hub id. Default: the hub's.")
    cifar10: str = flag("uoft-cs/cifar10:test", "CIFAR-10, as DATA:SPLIT. Default: the hub's.")
    omniglot: str = flag("", "Omniglot, handwritten characters, as DATA:SPLIT. Default: left out.")
    lfw: str = flag("data/lfw", "LFW, aligned: a folder with its pictures and pairs.txt. Default data/lfw.")
    output: str = flag("runs/reproduce", "Folder of the tables and pictures.")


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


def main(args: ReproduceArguments) -> None:
    """Run what is missing, if asked for, and write the tables."""
    import yaml

    from cosify.console import set_up_logging, show_markdown
    from cosify.files import write_whole

    set_up_logging()
    paper = yaml.safe_load((SCRIPTS / "paper.yaml").read_text(encoding="utf-8"))
    unknown = [target for target in args.targets if target not in ("all", *paper)]
    if unknown:
        raise InputError(f"targets has {unknown[0]!r}, expected all or one of {', '.join(paper)}")
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    for target in paper if "all" in args.targets else args.targets:
        missing = [command for file, command in needed(target, args) if not file.exists()]
        if args.run:
            for command in missing:
                logger.info("%s", shlex.join(command))
                subprocess.run([sys.executable, *command[1:]], check=True)
        text = markdown(target, paper[target], OURS[target](), [] if args.run else missing)
        draw(target, output)
        write_whole(output / f"{target}.md", text)
        show_markdown(text)


def needed(target: str, args: ReproduceArguments) -> list[tuple[Path, list[str]]]:
    """Return the files that a target is read from, each with the command that makes it."""
    found: list[tuple[Path, list[str]]] = []
    if target in ("table1", "table2", "fig1"):
        for name in COMPARISONS:
            command = ["python", "scripts/compare.py", "--config", f"scripts/recipes/{name}.yaml"]
            data = ["--data", args.cifar100] if name.startswith("cifar100") else []
            found.append((RESULTS / name / "table.json", [*command, *data, "--output", f"scripts/results/{name}"]))
    if target == "table6":
        recipe = ["--config", f"scripts/recipes/{FACES}.yaml", "--output", f"scripts/results/{FACES}"]
        heads = ["--heads", *FACE_HEADS, "--seeds", "0", "--keep", f"runs/{FACES}"]
        found.append((RESULTS / FACES / "table.json", ["python", "scripts/compare.py", *recipe, *heads]))
        for head in FACE_HEADS:
            found += verified(f"{FACES}/{head}-0", f"{FACES}/verification/{head}-0", [], args.lfw)
        for head in FACE_HEADS:
            kappa = twice_kappa(f"{FACES_LITE0}/verification/ls-0") if head == "2kappa" else head
            command = ["finetune", "--config", f"scripts/recipes/{FACES_LITE0}.yaml", "--kappa", kappa]
            found += verified(f"{FACES_LITE0}/{head}-0", f"{FACES_LITE0}/verification/{head}-0", command, args.lfw)
        for head in ("ls", "60"):
            command = ["finetune", "--config", f"scripts/recipes/{FACES_LITE0}.yaml", "--kappa", head]
            run = f"{FACES_LITE0}/imprint-{head}-0"
            found += verified(run, f"{FACES_LITE0}/imprint/{head}-0", [*command, "--set", "head_start=means"], args.lfw)
        for run, head, fold in ((f"{VIEW2}/{head}-{fold}", head, fold) for head in VIEW2_HEADS for fold in FOLDS):
            command = ["train", "--config", f"scripts/recipes/{FACES}.yaml", "--data", f"runs/faces/lfw-{fold}"]
            found += verified(run, run, [*command, "--kappa", head, "--epochs", "4"], args.lfw)
    if target == "table7":
        recipe = ["--config", f"scripts/recipes/{LONG_TAIL}.yaml", "--data", args.cifar100]
        heads = ["--heads", "softmax", *FACE_HEADS]
        command = ["python", "scripts/compare.py", *recipe, *heads, "--output", f"scripts/results/{LONG_TAIL}"]
        found.append((RESULTS / LONG_TAIL / "table.json", command))
    if target in ("table3", "fig3", "fig4"):
        recipe = ["--config", "scripts/recipes/cifar100_quarter.yaml", "--data", args.cifar100]
        for head in HEADS:
            run = RUN.format(head=head)
            setting = ["--head", "linear"] if head == "softmax" else ["--kappa", head]
            found.append((Path(run) / "export", ["python", "scripts/train.py", *recipe, *setting, "--output", run]))
        models = [f"{TITLES.get(head, f'kappa {head}')}={RUN.format(head=head)}" for head in HEADS]
        others = [args.cifar10, *([args.omniglot] if args.omniglot else [])]
        sets = ["--data", args.cifar100, "--ood", *others]
        command = ["python", "scripts/evaluate.py", *models, *sets, "--output", f"scripts/results/{EVALUATION}"]
        found.append((RESULTS / EVALUATION / "evaluation.json", command))
        if found[-1][0].exists():  # then the runs behind it are not needed
            return []
    return found


def verified(run: str, folder: str, training: list[str], lfw: str) -> list[tuple[Path, list[str]]]:
    """Return what a run's verification on LFW needs, with the commands that make it; nothing if it is there."""
    file = RESULTS / folder / "verification.json"
    if file.exists():
        return []
    pairs = ["--pairs", "lfw", "--data", lfw, "--output", f"scripts/results/{folder}"]
    found = [(file, ["python", "-m", "cosify", "verify", f"runs/{run}", *pairs])]
    if training:
        command = ["python", "-m", "cosify", *training, "--output", f"runs/{run}"]
        found.insert(0, (SCRIPTS.parent / "runs" / run / "export", command))
    return found


def read_lines(file: str) -> list[dict[str, Any]]:
    """Return the records of a result file; none if there is no such file."""
    path = RESULTS / file
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def twice_kappa(folder: str) -> str:
    """Return twice the final mean of kappa of a run whose metrics are there, else what stands for it in a command."""
    kappas = [record["kappa_mean"] for record in read_lines(f"{folder}/metrics.jsonl") if "kappa_mean" in record]
    return str(2 * kappas[-1]) if kappas else "TWICE_THE_LAST_KAPPA_OF_LS"


TITLES = {"ls": "LS", "softmax": "softmax"}


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
    for name, scale in COMPARISONS.items():
        rows = {row["head"]: row for row in read(name, "table.json").get("rows", [])}
        cells = {head: spread(row, "accuracy", 100) for head, row in rows.items()}
        if "ls" in rows:
            cells["kappa* of ls"] = spread(rows["ls"], "kappa", 1)
        columns.append(Ours(name, scale, cells))
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
    return [Ours(title, scale_of(), cells) for title, cells in found.items()]


def detections() -> list[Ours]:
    """Return AP with its interval."""
    found: dict[str, dict[str, str]] = {}
    for row, model in models().items():
        for where, scores in {"MISS": model["miss"], **model["ood"]}.items():
            for score, title in (("z_max", "z_max"), ("norm", "||x||"), ("norm_mahalanobis", "||x||/D")):
                one = scores[score]
                text = f"{one['ap']:.3f} [{one['ap_interval']['low']:.3f}, {one['ap_interval']['high']:.3f}]"
                found.setdefault(f"{where}, {title}", {})[row] = text
    return [Ours(title, scale_of(), cells) for title, cells in found.items()]


def probes() -> list[Ours]:
    """Return top-1 of the linear probe on the published models, with its standard error."""
    found: dict[str, dict[str, str]] = {}
    for row, name in PUBLISHED.items():
        measured = json.loads((CARDS / f"resnet18_cifar.{name}_cifar100" / "evaluation.json").read_text("utf-8"))
        for task, one in measured["models"][0]["transfer"].items():
            text = f"{100 * one['probe']['top1']:.2f} ± {100 * one['standard_error']:.2f}"
            found.setdefault(task, {})[row] = text
    scale = "the published CIFAR-100 models, ResNet-18 of half of the width, 30 epochs, seed 0"
    return [Ours(f"CIFAR-100 to {task}", scale, cells) for task, cells in found.items()]


def cosified() -> list[Ours]:
    """Return accuracy after cosification."""
    results = read("cosify_lite0", "results.json")
    cells = {}
    if results:
        cells["softmax"] = f"{100 * results['base']['test_accuracy']:.2f}"
        for row in results["rows"]:
            blocks = "last block" if row["blocks"] == "1" else row["blocks"]
            cells[f"{row['kappa']:g}, {blocks}"] = f"{100 * row['test_accuracy']:.2f}"
    tiny = {}
    for head in TINY_HEADS:
        lines = read_lines(f"{TINY}/{head}-0/metrics.jsonl")
        if lines:
            tiny[head if head == "softmax" else f"{head}, all"] = f"{100 * lines[-1]['test_accuracy']:.2f}"
    return [
        Ours("CIFAR-100 at 64 px", "EfficientNet-Lite0, 10,000 training images, 2 epochs, seed 0", cells),
        Ours(
            "Tiny-ImageNet at 96 px",
            "150 classes, EfficientNet-Lite0, 20,000 training images once, the classifier trained alone first, seed 0",
            tiny,
        ),
    ]


def faces() -> list[Ours]:
    """Return verification on LFW, mean and standard error over its folds."""
    scales = {
        FACES: "281 people of CelebA, iresnet18 of a quarter of the width, 48 pixels, 20 epochs, seed 0",
        FACES_LITE0: "281 people of CelebA, EfficientNet-Lite0 from ImageNet weights, 64 pixels, 5 epochs, seed 0",
        VIEW2: "nine folds of LFW train a network for the tenth, iresnet18 as above, 4 epochs, seed 0",
    }
    titles = {FACES: "LFW", FACES_LITE0: "LFW, EfficientNet-Lite0", VIEW2: "LFW, View 2"}
    cells = {name: {head: over_folds(fold_accuracies(name, head)) for head in FACE_HEADS} for name in scales}
    return [
        Ours(titles[name], f"{scale}; mean ± standard error", {k: v for k, v in cells[name].items() if v})
        for name, scale in scales.items()
    ]


def fold_accuracies(name: str, head: str) -> list[float]:
    """Return the accuracy on each fold of LFW; fewer than ten if not all were run."""
    if name != VIEW2:
        found = read(f"{name}/verification/{head}-0", "verification.json")
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


def read(name: str, file: str) -> dict[str, Any]:
    """Return the content of a result file; empty if there is none."""
    path = RESULTS / name / file
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def models() -> dict[str, dict[str, Any]]:
    """Return the evaluated models by row of the paper's tables."""
    rows = {"LS": "ls"}
    return {
        rows.get(model["model"], model["model"].removeprefix("kappa ")): model
        for model in read(EVALUATION, "evaluation.json").get("models", [])
    }


def scale_of() -> str:
    """Return how the evaluated models were trained."""
    return COMPARISONS["cifar100_quarter"] + ", seed 0"


def spread(row: Mapping[str, Any], key: str, factor: float) -> str:
    """Return mean ± standard deviation and the number of seeds."""
    deviation = row[f"{key}_std"]
    text = f"{factor * row[key]:.2f}" + ("" if deviation is None else f" ± {factor * deviation:.2f}")
    return f"{text} (n={len(row['seeds'])})"


def markdown(target: str, paper: Mapping[str, Any], ours: list[Ours], missing: list[list[str]]) -> str:
    """Return a table with a row for each of the paper's and of ours."""
    columns = [f"{name} (paper)" for name in paper["columns"]] + [f"{column.title} (ours)" for column in ours]
    rows = list(dict.fromkeys([*paper["rows"], *(row for column in ours for row in column.cells)]))
    lines = [f"# {target}: {paper['title']}", "", f"Paper: {paper['scale']}."]
    scales: dict[str, list[str]] = {}
    for column in ours:
        scales.setdefault(column.scale, []).append(column.title)
    several = len(scales) > 1
    lines += [f"Ours{', ' * several}{'; '.join(titles) * several}: {scale}." for scale, titles in scales.items()]
    if not ours and paper["rows"]:
        lines.append("Ours: not run; recipes are in scripts/recipes.")
    if missing:
        lines += ["", "Not there yet:", "", *(f"    {shlex.join(command)}" for command in missing)]
    if rows:
        header = " | ".join(["head", *(column.replace("|", "\\|") for column in columns)])
        lines += ["", f"| {header} |", "| --- " * (len(columns) + 1) + "|"]
        for row in rows:
            printed = [f"{value:g}" for value in paper["rows"].get(row, [])] or ["-"] * len(paper["columns"])
            cells = [row, *printed, *(column.cells.get(row, "not run") for column in ours)]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def draw(target: str, output: Path) -> None:
    """Draw the pictures of a figure."""
    from cosify.plots import plot_kappa_epochs, plot_simplified_loss

    if target == "fig1":
        for name, scale in COMPARISONS.items():
            runs = read_lines(f"{name}/runs.jsonl")
            heads = {run["head"]: run["kappa_by_epoch"] for run in runs if run["seed"] == 0 and run["kappa_by_epoch"]}
            shown = {head: kappas for head, kappas in heads.items() if head in ("rule", "ml", "ls", "trainable")}
            if shown:
                plot_kappa_epochs(shown, output / f"fig1_{name}.png", title=f"kappa of training samples, {scale}")
    if target == "fig2":
        kappas = {f"kappa {kappa}": float(kappa) for kappa in (5, 10, 20, 40, 60)}
        plot_simplified_loss(1000, {"kappa* of the paper": 12.83, **kappas}, output / "fig2.png")
    picture = {"fig3": "tsne.png", "fig4": "detection_miss.png"}.get(target)
    if picture is not None and (RESULTS / EVALUATION / "figures" / picture).exists():
        shutil.copy(RESULTS / EVALUATION / "figures" / picture, output / f"{target}.png")


if __name__ == "__main__":
    from cosify.console import Command

    Command(main, ReproduceArguments, __doc__, words=("targets",)).run()
