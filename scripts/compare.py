"""Train one recipe with every head of Tables 1 and 2, over seeds, and tabulate accuracy and kappa.

    python scripts/compare.py --config scripts/recipes/digits.yaml --output scripts/results/digits
    python scripts/compare.py --smoke

Choose heads and seeds; runs that are in OUTPUT/runs.jsonl already are not repeated:

    python scripts/compare.py --config scripts/recipes/digits.yaml --heads softmax ls 20 2kappa --seeds 0 1

A small network leaves a GPU half idle; eight runs side by side, a process each:

    python scripts/compare.py --config scripts/recipes/cifar100_gpu_40.yaml --at-once 8

OUTPUT then holds runs.jsonl, with a line for each run, and table.json and table.md, which are made from it.
"""

import json
import logging
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from cosify.errors import InputError
from cosify.settings import AT_LEAST_1, SEEDS, flag

if TYPE_CHECKING:
    from cosify.training import TrainArguments, TrainResult

logger = logging.getLogger("cosify")
HEADS = ["softmax", "rule", "ml", "ls", "2kappa", "2ls", "trainable", "adacos", "1", "5", "10", "20", "60"]
CORRECTIONS, GROUPS = ("plain", "adjusted"), ("accuracy", "many", "medium", "few")
OVERWRITTEN = {"head", "kappa", "seed"}  # settings of a recipe that each run has its own value of
DOUBLED = "2kappa"  # twice the final mean of LS with the same seed, fixed; "2ls" guesses it from the number of classes


@dataclass(frozen=True)
class CompareArguments:
    """Settings: what to train and where to write."""

    config: str | None = flag(None, "Recipe of cosify train. Default: the digits.")
    data: str | None = flag(None, "Data, in place of the recipe's. Default: the recipe's.")
    heads: list[str] = flag(
        HEADS,
        "Heads: softmax, 2kappa (twice kappa* of an LS run, which 2ls guesses), or values of --kappa. Default: Tables 1"
        " and 2, 2ls and AdaCos.",
    )
    seeds: list[int] = flag([0, 1, 2], "Seeds, with one run each. Default 0 1 2.", SEEDS)
    output: str = flag("runs/compare", "Folder of the results. Default runs/compare.")
    keep: str | None = flag(None, "Keep the runs here, and go on with those that were stopped. Default: results alone.")
    at_once: int = flag(1, "Runs side by side, a process each. Default 1.", AT_LEAST_1)
    threads: int = flag(1, "CPU threads. Default 1: small images gain nothing from more.", AT_LEAST_1)
    smoke: bool = flag(False, "Softmax, LS and 2kappa on synthetic images. Default: off.")


def main(args: CompareArguments) -> None:
    """Train what is missing, then write the table."""
    from cosify.console import parse_arguments
    from cosify.console.parse import read_yaml
    from cosify.files import write_json, write_whole
    from cosify.training import TrainArguments

    set_up(args.threads)
    if args.smoke:
        args = replace(args, heads=["softmax", "ls", DOUBLED], seeds=[0])
    recipe = parse_arguments(TrainArguments, [] if args.config is None else ["--config", args.config])
    own = [] if args.config is None else sorted(OVERWRITTEN & set(read_yaml(Path(args.config), TrainArguments)))
    if own:
        raise InputError(f"{args.config} sets {own}, which follow from --heads and --seeds here; drop them there")
    recipe = replace(recipe, smoke=args.smoke, tracker="none", data=recipe.data if args.data is None else args.data)
    folder = Path(args.output)
    runs = folder / "runs.jsonl"
    done = read(runs)
    known = {(run["head"], run["seed"]) for run in done}
    asked_for = [(head, seed) for seed in args.seeds for head in behind_ls(args.heads)]
    missing = [run for run in dict.fromkeys(asked_for) if run not in known]
    alone = [seed for head, seed in missing if head == DOUBLED and ("ls", seed) not in known.union(missing)]
    if alone:
        raise InputError(f"{DOUBLED} needs runs of ls, with the seeds {alone} too; name ls among --heads")
    folder.mkdir(parents=True, exist_ok=True)
    same_recipe(folder / "recipe.json", recipe)
    same_data(runs, done, recipe)
    waves = [[run] for run in missing] if args.at_once == 1 else by_need(missing)
    for wave in waves:
        asked = [(settings(recipe, head, seed, done), head, folder, args.keep) for head, seed in wave]
        for run in trained(asked, args):
            done.append(run)
            write_whole(runs, "".join(json.dumps(run) + "\n" for run in done))
    made = folder / "environment.json"  # missing if all runs were copied from elsewhere
    environment = json.loads(made.read_text(encoding="utf-8")) if made.exists() else None
    rows = summarise(done, in_order({run["head"] for run in done}))
    table = {
        "command": shlex.join(["python", "scripts/compare.py", *sys.argv[1:]]),
        "environment": environment,
        "rows": rows,
    }
    write_json(folder / "table.json", table)
    write_whole(folder / "table.md", markdown(rows))
    logger.info("%s", markdown(rows))


def set_up(threads: int) -> None:
    """Prepare a process that trains: its threads, and the lines that it shows."""
    import torch

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    logging.getLogger("cosify.training").setLevel(logging.WARNING)
    logging.getLogger("cosify.models").setLevel(logging.WARNING)
    torch.set_num_threads(threads)


def set_up_worker(threads: int) -> None:
    """Prepare a process that trains for another one, and ends with it: killed, that one cannot end it."""
    starter = parent_process()
    assert starter is not None

    def follow() -> None:
        starter.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()
    set_up(threads)


def behind_ls(heads: Sequence[str]) -> list[str]:
    """Return the heads in their order, but with 2kappa behind LS, whose runs it needs."""
    if DOUBLED not in heads or "ls" not in heads or heads.index("ls") < heads.index(DOUBLED):
        return list(heads)
    others = [head for head in heads if head != DOUBLED]
    return [each for head in others for each in ((head, DOUBLED) if head == "ls" else (head,))]


def by_need(runs: Sequence[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    """Return (head, seed) in waves: those of 2kappa follow those of LS."""
    return [[run for run in runs if (run[0] == DOUBLED) == last] for last in (False, True)]


def trained(asked: Sequence[tuple[Any, ...]], args: CompareArguments) -> Iterator[dict[str, Any]]:
    """Yield what `train_one` returns for these arguments, as it comes; several at once in processes of their own.

    One that fails does so at the end, so that the others are not lost.
    """
    if len(asked) < 2:
        yield from (train_one(*each) for each in asked)
        return
    spawn = get_context("spawn")
    with ProcessPoolExecutor(args.at_once, spawn, initializer=set_up_worker, initargs=(args.threads,)) as processes:
        failed = []
        for future in as_completed([processes.submit(train_one, *each) for each in asked]):
            if future.exception() is None:
                yield future.result()
            else:
                failed.append(future)
        for future in failed:
            future.result()


def in_order(heads: set[str]) -> list[str]:
    """Return heads by name in the order of HEADS, then those of a fixed kappa by its size."""
    from cosify.settings.training import kappa_policy

    fixed = [head for head in heads if isinstance(kappa_policy(head), float)]
    others = sorted(heads.difference(fixed, HEADS))
    return [head for head in HEADS if head in heads.difference(fixed)] + others + sorted(fixed, key=float)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the runs that were made already."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def same_recipe(path: Path, recipe: "TrainArguments") -> None:
    """Store the recipe, or refuse one that differs from the stored one: one table holds runs of one recipe."""
    from cosify.files import write_json
    from cosify.settings import resolved

    if not path.exists():
        write_json(path, {key: value for key, value in resolved(recipe).items() if key != "data"})
        return
    other = others(json.loads(path.read_text(encoding="utf-8")), recipe)
    if other:
        raise InputError(f"{path} has other {other} than this recipe, expected the same; choose another --output")


def others(noted: dict[str, Any], args: "TrainArguments") -> list[str]:
    """Return the names of settings that were noted with other values, but not `data`: it may lie in another place."""
    from cosify.settings import resolved

    usual = resolved(type(args)())  # of settings that there were not yet
    ours = resolved(args)
    return sorted(key for key in ours if key != "data" and ours[key] != noted.get(key, usual[key]))


def same_data(path: Path, done: Sequence[dict[str, Any]], recipe: "TrainArguments") -> None:
    """Refuse data that are not those of the stored runs; what ran before these were noted is taken as it is."""
    from cosify.data import Fingerprint
    from cosify.training.data_record import load_data
    from cosify.training.session import smoke_settings

    noted = {run["data"] for run in done if "data" in run}
    if not noted:
        return
    recipe = smoke_settings(recipe)
    if noted != {Fingerprint.of_data(recipe.data, load_data(recipe)).digest()}:
        raise InputError(
            f"{path} holds runs on other data than {recipe.data!r}, expected the same; choose another --output"
        )


def settings(recipe: "TrainArguments", head: str, seed: int, done: Sequence[dict[str, Any]]) -> "TrainArguments":
    """Return the recipe with one head and seed."""
    if head == "softmax":
        return replace(recipe, head="linear", kappa="ls", seed=seed)
    if head == DOUBLED:
        head = str(2 * next(run["kappa"] for run in done if (run["head"], run["seed"]) == ("ls", seed)))
    return replace(recipe, kappa=head, seed=seed)


def train_one(args: "TrainArguments", head: str, output: Path, keep: str | None) -> dict[str, Any]:
    """Train, and return what the table needs; the run's environment.json goes to `output`, the run to `keep`."""
    from cosify.console.training import export, plot
    from cosify.data import Fingerprint
    from cosify.files import write_whole
    from cosify.training import read_metrics, train
    from cosify.training.run_folder import read_config
    from cosify.training.session import smoke_settings

    with tempfile.TemporaryDirectory(prefix="cosify-compare-") as aside:
        folder = Path(aside if keep is None else keep, f"{head}-{args.seed}")
        begun = (folder / "checkpoints").exists()
        args = smoke_settings(args)
        other = others(read_config(folder)["arguments"], args) if begun else []
        if other:
            raise InputError(
                f"{folder} was run with other {other}, expected those of this recipe; choose another --keep"
            )
        result = train(replace(args, resume=str(folder)) if begun else replace(args, output=str(folder)))
        if keep is not None:
            export(result)
            plot(result)
        records = read_metrics(folder)
        data = Fingerprint.of_record(read_config(folder)["fingerprint"]).digest()
        environment = (folder / "environment.json").read_text(encoding="utf-8")
        write_whole(output / "environment.json", environment)
    kappas = [record["kappa_mean"] for record in records if "kappa_mean" in record]
    run = {
        "head": head,
        "seed": args.seed,
        "commit": json.loads(environment)["commit"],
        "data": data,
        "accuracy": result.evaluation.accuracy,
        "loss": result.evaluation.loss,
        "mean_angle_deg": result.evaluation.mean_angle_deg,
        "kappa": None if result.kappa is None else result.kappa.mean,
        "kappa_by_epoch": kappas,
        "low_edge": None if result.kappa is None else result.kappa.low_edge,
        "high_edge": None if result.kappa is None else result.kappa.high_edge,
        "seconds": result.seconds,
        **({} if args.imbalance is None else long_tail(result)),
    }
    logger.info("%s, seed %d: %.2f %%, kappa %s", head, args.seed, 100 * result.evaluation.accuracy, run["kappa"])
    return run


def long_tail(result: "TrainResult") -> dict[str, Any]:
    """Return accuracy by class size, plain and with the logits adjusted by the prior."""
    import torch

    from cosify.evaluation import adjust_logits
    from cosify.evaluation.corrections import group_accuracy

    assert result.data.train_labels is not None
    counts = result.data.train_labels.bincount(minlength=len(result.label_names))
    model = result.model.eval()
    with torch.no_grad():
        batches = [(model(images), labels) for images, labels in result.data.test_batches(256)]
    logits, labels = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
    found = {}
    for name, values in zip(CORRECTIONS, (logits, adjust_logits(logits, counts)), strict=True):
        measured = group_accuracy(values.argmax(dim=1), labels, counts)
        found[name] = {group: getattr(measured, group) for group in GROUPS}
    return found


def summarise(runs: Sequence[dict[str, Any]], heads: Sequence[str]) -> list[dict[str, Any]]:
    """Return mean and standard deviation over seeds for each head, in the order of `heads`."""
    rows = []
    for head in dict.fromkeys(heads):
        of_head = [run for run in runs if run["head"] == head]
        row: dict[str, Any] = {"head": head, "seeds": [run["seed"] for run in of_head]}
        of_groups = [by_group(run) for run in of_head]
        flat = [{**run, **groups} for run, groups in zip(of_head, of_groups, strict=True)]
        for name in ("accuracy", "kappa", "mean_angle_deg", "low_edge", "high_edge", *of_groups[0]):
            values = [run[name] for run in flat if run[name] is not None]
            row[name] = statistics.mean(values) if values else None
            row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
        first = [run["kappa_by_epoch"][0] for run in of_head if run["kappa_by_epoch"]]
        row["kappa_first_epoch"] = statistics.mean(first) if first else None
        rows.append(row)
    return rows


def by_group(run: dict[str, Any]) -> dict[str, float | None]:
    """Return the accuracies by class size of a run, such as `plain_few`; nothing for even classes."""
    return {f"{name}_{group}": run[name][group] for name in CORRECTIONS if name in run for group in GROUPS}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table for people."""
    from cosify.evaluation import Table

    cells = [
        {
            "head": row["head"],
            "seeds": str(len(row["seeds"])),
            "test accuracy %": spread(row, "accuracy", 100),
            "kappa, first epoch": "-" if row["kappa"] is None else f"{row['kappa_first_epoch']:.2f}",
            "kappa, last epoch": spread(row, "kappa", 1),
            "at grid edges %": (
                "-" if row["low_edge"] is None else f"{100 * row['low_edge']:.1f}, {100 * row['high_edge']:.1f}"
            ),
            "angle deg": f"{row['mean_angle_deg']:.1f}",
        }
        for row in rows
    ]
    text = Table.of_rows(cells).lines() + "\n"
    if "plain_accuracy" in rows[0]:
        names = {f"{group} {name} %": f"{name}_{group}" for name in CORRECTIONS for group in GROUPS}
        cells = [
            {"head": row["head"], **{title: spread(row, name, 100) for title, name in names.items()}} for row in rows
        ]
        text += "\n" + Table.of_rows(cells).lines() + "\n"
    return text


def spread(row: dict[str, Any], name: str, factor: float) -> str:
    """Return "mean ± standard deviation", or a dash."""
    if row[name] is None:
        return "-"
    deviation = row[f"{name}_std"]
    return f"{factor * row[name]:.2f}" + ("" if deviation is None else f" ± {factor * deviation:.2f}")


if __name__ == "__main__":
    from cosify.console import Command

    Command(main, CompareArguments, __doc__).run()
