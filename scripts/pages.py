"""Write the pages whose tables come from result files: scripts/results/README.md and hub_cards/README.md.

    python scripts/pages.py

The texts are templates in scripts/page_texts; all numbers of tables come from the result files.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # python scripts/pages.py sees this folder alone

from cosify.evaluation import Table
from scripts import our_results, reproduce

RESULTS = our_results.RESULTS
TEXTS = our_results.SCRIPTS / "page_texts"
PAGES = {"results.md.jinja": RESULTS / "README.md", "hub_cards.md.jinja": our_results.CARDS / "README.md"}
PICTURE = "accuracy_by_kappa.png"  # of README.md
KAPPAS = "kappa_by_num_classes.png"
TRADEOFF = "kappa_tradeoff.png"  # of README.md
LS_RUNS = {  # results of LS: name and number of classes
    "digits": ("digits", 10),
    "two_digits": ("two digits", 100),
    "cifar100_quarter": ("CIFAR-100", 100),
    "tiny_imagenet_ls": ("Tiny-ImageNet", 200),
    "celeba_faces": ("CelebA", 281),
    "omniglot_cosface_ls": ("Omniglot", 964),
    "lfw_cosface_ls": ("LFW", 5749),
}
SCANS = {
    "scan_lite0": "EfficientNet-Lite0, ImageNet weights",
    "scan_cifar100_ls": "`resnet18_cifar.cos_ls_cifar100`",
    "scan_cifar100_softmax": "`resnet18_cifar.softmax_cifar100`",
}


@dataclass(frozen=True)
class PagesArguments:
    """No settings."""


def main(args: PagesArguments) -> None:
    """Write the pages."""
    from cosify.console import set_up_logging
    from cosify.files import write_whole

    set_up_logging()
    for template, file in PAGES.items():
        write_whole(file, page(template))
    draw_accuracy(RESULTS / PICTURE)
    draw_kappas(RESULTS / KAPPAS)
    draw_tradeoff(RESULTS / TRADEOFF)


def page(template: str) -> str:
    """Return a page."""
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    paper = yaml.safe_load((our_results.SCRIPTS / "paper.yaml").read_text(encoding="utf-8"))

    def beside_paper(target: str) -> str:
        _, _, rest = reproduce.markdown(target, paper[target], our_results.OURS[target](), []).partition("\n\n")
        return rest.strip()

    jinja = Environment(loader=FileSystemLoader(TEXTS), undefined=StrictUndefined, trim_blocks=True, autoescape=False)
    return (
        jinja.get_template(template).render(
            beside_paper=beside_paper,
            table=lambda name: read(f"{name}/table.md").strip(),
            section=section,
            scans=scans,
            by_seed=by_seed,
            ls_start=ls_start,
            cosified_tiny=cosified_tiny,
            tiny_lead=tiny_lead,
            sweep=sweep,
            steps=steps,
            lfw_lead=lfw_lead,
            lfw_seeds_lead=lfw_seeds_lead,
            view2_lead=view2_lead,
            long_tail_lead=long_tail_lead,
            lead=lead,
            read_json=lambda name: json.loads(read(name)),
            read_lines=lambda name: [json.loads(line) for line in read(name).splitlines()],
            backbones=backbones,
        )
        + "\n"
    )


def read(name: str) -> str:
    """Return the text of a result file."""
    return (RESULTS / name).read_text(encoding="utf-8")


def section(name: str, title: str) -> str:
    """Return the table under a title in a markdown file."""
    _, found, rest = read(name).partition(f"## {title}\n")
    assert found, f"{name} has no section {title!r}"
    return rest.split("\n## ")[0].strip()


def backbones(architecture: str) -> str:
    """Return the table of the published backbones of an architecture, in the order of their family."""
    from cosify.cards import CardInfo
    from cosify.cards.card import family_table

    infos = [CardInfo.of_folder(folder) for folder in sorted(our_results.CARDS.glob(f"{architecture}.*"))]
    order = infos[0].facts.siblings
    return family_table(sorted(infos, key=lambda info: order.index(info.name))).lines().strip()


def draw_accuracy(file: Path) -> None:
    """Draw the accuracy of fixed kappas beside LS and softmax, for a hundred classes."""
    from cosify.plots import Accuracy, plot_accuracy_by_kappa

    found = {
        row["head"]: Accuracy(row["accuracy"], row["accuracy_std"], row["kappa"])
        for row in json.loads(read("two_digits/table.json"))["rows"]
    }
    fixed = {float(head): accuracy for head, accuracy in found.items() if head.isdigit()}
    others = {"LS finds it": found["ls"], "softmax, no kappa": found["softmax"]}
    plot_accuracy_by_kappa(fixed, others, file, title="100 classes (two digits side by side), 3 seeds")


def draw_tradeoff(file: Path) -> None:
    """Draw what a backbone cosified on Tiny-ImageNet gains and loses by kappa: errors told apart, and other tasks."""
    from cosify.plots import Accuracy, plot_kappa_tradeoff

    names = {"ls": "LS", "2kappa": "twice"}
    probes = json.loads(read(f"{our_results.TINY}/transfer.json"))["backbones"]
    errors, others = {}, {}
    for head in ("start", *our_results.TINY_HEADS):
        runs = our_results.tiny_runs(head)
        kappa = statistics.mean(run["kappa_mean"] for run in runs) if "kappa_mean" in (runs or [{}])[0] else None
        shares = [statistics.mean(statistics.mean(task["top1"]) for task in run.values()) for run in probes[head]]
        others[names.get(head, head)] = Accuracy(statistics.mean(shares), deviation(shares), kappa)
        if runs:
            found = [each["MISS"]["z_max"]["ap"] for each in our_results.tiny_detections(head)]
            errors[names.get(head, head)] = Accuracy(statistics.mean(found), deviation(found), kappa)
    panels = {
        "errors told apart by the cosine, average precision": errors,
        "other tasks, probes on ten images a class": others,
    }
    title = "EfficientNet-Lite0 with ImageNet weights, cosified on Tiny-ImageNet: mean and deviation of three seeds"
    plot_kappa_tradeoff(panels, file, title=title)


def draw_kappas(file: Path) -> None:
    """Draw the kappa* that LS ended with against the number of classes, ours and the paper's."""
    import yaml

    from cosify.plots import plot_kappa_by_num_classes

    paper = yaml.safe_load((our_results.SCRIPTS / "paper.yaml").read_text(encoding="utf-8"))
    printed = {name: point for table in paper.values() for name, point in table.get("kappa_by_num_classes", {}).items()}
    ours = {name: (num, last_kappa(folder)) for folder, (name, num) in LS_RUNS.items() if (RESULTS / folder).exists()}
    plot_kappa_by_num_classes({"ours": ours, "paper": printed}, file, title="kappa* of LS after training")


def last_kappa(name: str) -> float:
    """Return the mean kappa of LS in the last epoch, of one run or of the seeds of a comparison."""
    if (RESULTS / name / "table.json").exists():
        rows = json.loads(read(f"{name}/table.json"))["rows"]
        return float(next(row["kappa"] for row in rows if row["head"] == "ls"))
    return float(json.loads(read(f"{name}/metrics.jsonl").splitlines()[-1])["kappa_mean"])


def scans() -> str:
    """Return what cosify scan recommends for some models."""
    rows = []
    for name, title in SCANS.items():
        found = json.loads(read(f"{name}/scan.json"))
        recommended = {each["purpose"]: f"{each['kappa']:.1f}" for each in found["recommendations"]}
        rows.append({"model": f"[{title}]({name}/scan.md)", "kappa* of the images": f"{found['kappa']['mean']:.1f}"})
        rows[-1] |= {f"for {purpose}": kappa for purpose, kappa in recommended.items()}
    return Table.of_rows(rows).lines()


def by_seed(name: str, what: str = "head, training, weight decay", told: Sequence[str] = ()) -> str:
    """Return accuracy, angles, rank, probes and what z_max tells of an evaluation, mean ± deviation over seeds.

    Args:
        name: folder of the results, in one file or several; the models in them are titled "WHAT, seed N".
        what: heading of the first column.
        told: what the largest cosine is to tell from right predictions: errors, or a set of outliers.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for file in sorted((RESULTS / name).glob("evaluation*.json")):
        for model in json.loads(file.read_text(encoding="utf-8"))["models"]:
            groups.setdefault(model["model"].partition(", seed")[0], []).append(model)
    rows = []
    for title, models in groups.items():
        spaces = [model["scan"]["diversity"] for model in models]
        row = {
            what: title,
            "seeds": str(len(models)),
            "accuracy %": spread([100 * model["accuracy"] for model in models]),
            "to span, degrees": spread([space["mean_span_angle_deg"] for space in spaces]),
            "effective rank": spread([space["effective_rank"] for space in spaces]),
        }
        if told:
            row["to own class, degrees"] = spread([space["mean_class_angle_deg"] for space in spaces])
        for outliers in told:
            found = [{"errors": model["miss"], **model["ood"]}[outliers]["z_max"]["ap"] for model in models]
            row[f"{outliers}, AP of z_max"] = spread(found, 3)
        for task in models[0]["transfer"]:
            row[f"probe on {task} %"] = spread([100 * model["transfer"][task]["probe"]["top1"] for model in models])
        rows.append(row)
    return Table.of_rows(rows).lines()


def ls_start() -> str:
    """Return loss and kappa* of the first epochs, case by case, means over seeds."""
    cases: dict[str, list[Mapping[str, Any]]] = {}
    for each in json.loads(read("ls_start/results.json"))["rows"]:
        cases.setdefault(each["case"]["name"], []).append(each)

    def by_epoch(runs: list[Mapping[str, Any]], key: str, digits: int) -> str:
        epochs = zip(*(run["epochs"] for run in runs), strict=True)
        return ", ".join(f"{statistics.mean(epoch[key] for epoch in same):.{digits}f}" for same in epochs)

    return Table.of_rows(
        [
            {
                "case": name,
                "seeds": str(len(runs)),
                "C": str(runs[0]["C"]),
                "d": str(runs[0]["d"]),
                "log C": f"{runs[0]['log_C']:.1f}",
                "loss by epoch": by_epoch(runs, "loss", 1),
                "kappa by epoch": by_epoch(runs, "kappa", 0),
                "common direction": by_epoch(runs, "common_direction", 2),
                "test accuracy %": spread([100 * run["epochs"][-1]["test_accuracy"] for run in runs]),
            }
            for name, runs in cases.items()
        ]
    ).lines()


def cosified_tiny() -> str:
    """Return the table of backbones cosified on Tiny-ImageNet: kappa, accuracy, and what transfers."""
    lines = read(f"{our_results.TINY}/transfer.md").splitlines()
    columns = "| head | kappa | accuracy % | errors, AP of z_max | outliers, AP of z_max "
    rows = [columns + lines[0].removeprefix("| backbone "), "| --- | --- | --- | --- " + lines[1]]
    rows.append(lines[2].replace("| start |", "| start | - | - | - | - |"))
    for head, line in zip((*our_results.TINY_HEADS, *our_results.TINY_VARIANTS), lines[3:], strict=True):
        runs = our_results.tiny_runs(head)
        kappa = "-" if head == "softmax" else f"{statistics.mean(last['kappa_mean'] for last in runs):.1f}"
        assert line.startswith(f"| {head} |")
        accuracy, found = spread([100 * last["test_accuracy"] for last in runs]), our_results.tiny_detections(head)
        aps = [[each[where]["z_max"]["ap"] for each in found] for where in ("MISS", "OOD")]
        told = " | ".join(spread(values, 3) if values else "-" for values in aps)
        rows.append(line.replace(f"| {head} |", f"| {head} | {kappa} | {accuracy} | {told} |"))
    return "\n".join(rows)


def tiny_lead(head: str) -> str:
    """Return how far a head is ahead of softmax on the classes of Tiny-ImageNet that both learnt, in percent."""
    pairs = zip(our_results.tiny_runs(head), our_results.tiny_runs("softmax"), strict=True)
    return mean_and_error([100 * (ours["test_accuracy"] - softmax["test_accuracy"]) for ours, softmax in pairs])


def lfw_lead(name: str, other: str) -> str:
    """Return how far a model is ahead of another on LFW, mean ± standard error over its folds, in percent."""
    both = [json.loads(read(f"{each}/verification.json"))["verification"]["fold_accuracies"] for each in (name, other)]
    return our_results.over_folds([mine - others for mine, others in zip(*both, strict=True)])


def lfw_seeds_lead(head: str, other: str, name: str = our_results.FACES) -> str:
    """Return how far a head is ahead of another on LFW, mean over seeds ± standard error, in percent."""
    return paired(our_results.lfw_seeds(head, name), our_results.lfw_seeds(other, name))


def view2_lead() -> str:
    """Return how far LS is ahead of kappa = 60 on the folds of LFW, mean ± standard error, in percent."""
    pairs = zip(
        *(our_results.fold_accuracies(our_results.VIEW2, head) for head in our_results.VIEW2_HEADS), strict=True
    )
    return our_results.over_folds([ls - other for ls, other in pairs])


def long_tail_lead(head: str, other: str, logits: str) -> str:
    """Return how far a head is ahead of another on CIFAR-100-LT, mean over seeds ± standard error, in percent."""
    return lead(our_results.LONG_TAIL, head, other, lambda run: run[logits])


def lead(
    name: str, head: str, other: str, part: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda run: run
) -> str:
    """Return how far a head is ahead of another in a comparison, mean over seeds ± standard error, in percent."""
    runs = our_results.read_lines(f"{name}/runs.jsonl")
    mine, others = [
        {run["seed"]: part(run)["accuracy"] for run in runs if run["head"] == each} for each in (head, other)
    ]
    return paired(mine, others)


def paired(mine: Mapping[int, float], others: Mapping[int, float]) -> str:
    """Return the mean difference of accuracies of the same seed ± its standard error, in percent."""
    return mean_and_error([100 * (mine[seed] - others[seed]) for seed in mine])


def mean_and_error(values: list[float]) -> str:
    """Return the mean ± its standard error."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) / math.sqrt(len(values)):.1f}"


def deviation(values: list[float]) -> float:
    """Return the standard deviation; 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def spread(values: list[float], digits: int = 1) -> str:
    """Return the mean, with ± standard deviation if there are several values."""
    text = f"{statistics.mean(values):.{digits}f}"
    return text + (f" ± {deviation(values):.{digits}f}" if len(values) > 1 else "")


def sweep() -> dict[str, int]:
    """Return how many architectures could be converted: timm's with a classifier of their own, and without; others'."""
    lines = [json.loads(line) for line in read("sweep.jsonl").splitlines()]
    of_timm = [each for each in lines if each["library"] == "timm"]
    own = [each["outcome"] == "ok" for each in of_timm if each["default_classes"] > 0]
    headless = [each["outcome"] == "ok" for each in of_timm if each["default_classes"] == 0]
    others = [each["outcome"] == "ok" for each in lines if each["library"] != "timm"]
    return {
        "own": len(own), "own_ok": sum(own), "headless": len(headless), "headless_ok": sum(headless),
        "others": len(others), "others_ok": sum(others),
    }  # fmt: skip


def steps(name: str) -> str:
    """Return images per second of whole training steps, and the speed of LS relative to the other heads."""
    rows = []
    for case in json.loads(read(name))["cases"]:
        speed = case["images_per_second"]
        row = {"": "`torch.compile`" if case["compiled"] else "eager", **{head: f"{speed[head]:.0f}" for head in speed}}
        rows.append(row | {f"LS / {head}": f"{speed['LS'] / speed[head]:.3f}" for head in ("fixed", "softmax")})
    return Table.of_rows(rows).lines()


if __name__ == "__main__":
    from cosify.console import Command

    Command(main, PagesArguments, __doc__).run()
