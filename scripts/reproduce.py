"""Put the paper's numbers and ours side by side, with scale, seeds and errors; what was not run is marked.

    python scripts/reproduce.py all
    python scripts/reproduce.py table6 table7
    python scripts/reproduce.py fig1 --output runs/reproduce

Numbers are read from scripts/results.  If a file is missing, the commands that make it are shown; --run runs them, on
the data that --cifar100, --cifar10, --omniglot and --lfw name (folders or hub ids).  On a CPU that takes hours.
"""

import logging
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # python scripts/reproduce.py sees this folder alone

from cosify.errors import InputError
from cosify.evaluation import Table
from cosify.settings import flag
from scripts.our_results import (
    COMPARISONS,
    EVALUATION,
    FACE_HEADS,
    FACES,
    FACES_LITE0,
    FOLDS,
    LITE0_RUNS,
    LONG_TAIL,
    OURS,
    PUBLISHED,
    RESULTS,
    SCRIPTS,
    SEEDS,
    TITLES,
    VIEW2,
    VIEW2_HEADS,
    Ours,
    read_lines,
)

logger = logging.getLogger("cosify")
ROOT = SCRIPTS.parent


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
    if args.run:
        args = from_anywhere(args)
    output.mkdir(parents=True, exist_ok=True)
    for target in paper if "all" in args.targets else args.targets:
        done: list[list[str]] = []
        while args.run and (commands := [each for each in missing(target, args) if each not in done]):
            run(commands[0])
            done.append(commands[0])  # later ones may need what it found
        text = markdown(target, paper[target], OURS[target](), [] if args.run else missing(target, args))
        draw(target, output)
        write_whole(output / f"{target}.md", text)
        show_markdown(text)


def from_anywhere(args: ReproduceArguments) -> ReproduceArguments:
    """Return the settings with whole paths of the data that lie here: commands run in the top of the checkout."""
    from cosify.data.sources import base_and_split

    data = {name: getattr(args, name) for name in ("cifar100", "cifar10", "omniglot", "lfw")}
    here = {name: each for name, each in data.items() if each and Path(base_and_split(each)[0]).exists()}
    whole: dict[str, Any] = {name: str(Path(each).absolute()) for name, each in here.items()}
    return args if Path.cwd() == ROOT else replace(args, **whole)


def run(command: list[str]) -> None:
    """Run a command in the top of the checkout; where it fails, end with its exit code."""
    logger.info("%s", shlex.join(command))
    code = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, check=False).returncode
    if code != 0:
        logger.error("error: this command ended with exit code %d, see above: %s", code, shlex.join(command))
        sys.exit(code if code > 0 else 128 - code)  # below 0 it is a signal


def missing(target: str, args: ReproduceArguments) -> list[list[str]]:
    """Return the commands that make the files which are not there."""
    return [command for file, command in needed(target, args) if not file.exists()]


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
        heads = ["--heads", *FACE_HEADS, "--seeds", *map(str, SEEDS), "--keep", f"runs/{FACES}"]
        found.append((RESULTS / FACES / "table.json", ["python", "scripts/compare.py", *recipe, *heads]))
        for run in (f"{head}-{seed}" for head in FACE_HEADS for seed in SEEDS):
            found += verified(f"{FACES}/{run}", f"{FACES}/verification/{run}", [], args.lfw)
        finetune = ["finetune", "--config", f"scripts/recipes/{FACES_LITE0}.yaml"]
        for head, seed in LITE0_RUNS:
            run, ls_run = f"{FACES_LITE0}/{head}-{seed}", f"ls-{seed}"
            ls_runs = (RESULTS / FACES_LITE0 / "verification" / ls_run, SCRIPTS.parent / "runs" / FACES_LITE0 / ls_run)
            kappa = twice_kappa(*ls_runs) if head == "2kappa" else head
            command = [*finetune, "--kappa", kappa, "--seed", str(seed)]
            found += verified(run, f"{FACES_LITE0}/verification/{head}-{seed}", command, args.lfw)
        for head, seed in product(("ls", "60"), (0, 1)):
            command = [*finetune, "--kappa", head, "--seed", str(seed), "--set", "head_start=means"]
            run = f"{FACES_LITE0}/imprint-{head}-{seed}"
            found += verified(run, f"{FACES_LITE0}/imprint/{head}-{seed}", command, args.lfw)
        for run, head, fold in ((f"{VIEW2}/{head}-{fold}", head, fold) for head in VIEW2_HEADS for fold in FOLDS):
            command = ["train", "--config", f"scripts/recipes/{FACES}.yaml", "--data", f"runs/faces/lfw-{fold}"]
            found += verified(run, run, [*command, "--kappa", head, "--epochs", "4"], args.lfw)
    if target == "table7":
        recipe = ["--config", f"scripts/recipes/{LONG_TAIL}.yaml", "--data", args.cifar100]
        heads = ["--heads", "softmax", *FACE_HEADS]
        command = ["python", "scripts/compare.py", *recipe, *heads, "--output", f"scripts/results/{LONG_TAIL}"]
        found.append((RESULTS / LONG_TAIL / "table.json", command))
    if target in ("table3", "fig3", "fig4"):
        models = [f"{TITLES[row]}=resnet18_cifar.{name}_cifar100" for row, name in PUBLISHED.items()]
        others = [args.cifar10, *([args.omniglot] if args.omniglot else [])]
        sets = ["--data", args.cifar100, "--ood", *others]
        command = ["python", "scripts/evaluate.py", *models, *sets, "--output", f"scripts/results/{EVALUATION}"]
        found.append((RESULTS / EVALUATION / "evaluation.json", command))
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


def twice_kappa(*folders: Path) -> str:
    """Return twice the last mean of kappa by the first metrics that are there, else what stands for it in a command."""
    for folder in folders:
        records = read_lines(str(folder / "metrics.jsonl"))
        if records:
            return str(2 * records[-1]["kappa_mean"])
    return "TWICE_THE_LAST_KAPPA_OF_LS"


def markdown(target: str, paper: Mapping[str, Any], ours: list[Ours], commands: list[list[str]]) -> str:
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
    if commands:
        lines += ["", "Not there yet:", "", *(f"    {shlex.join(command)}" for command in commands)]
    cells = []
    for row in rows:
        printed = [f"{value:g}" for value in paper["rows"].get(row, [])] or ["-"] * len(paper["columns"])
        cells.append((row, *printed, *(column.cells.get(row, "not run") for column in ours)))
    if rows:
        lines += ["", Table("", "", ("head", *columns), tuple(cells)).lines()]
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
