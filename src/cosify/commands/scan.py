"""Say which kappa suits a pretrained classifier, without training it.

    cosify scan resnet50 FOLDER
    cosify scan efficientnet-lite0 uoft-cs/cifar100 --limit 1000
    cosify scan RUN digits:train

MODEL is a run folder, a folder of cosify.save, timm or transformers, hf-hub:ORG/NAME, ORG/NAME of transformers, or a
timm name; it may have a stock softmax head.  DATA are images like those that you will train on; their labels are used
if they are the model's classes.  The folder of the result then holds scan.json, scan.md, kappa.png and the features,
which are used again while model, data and transform are the same.  See that everything works, in seconds:

    cosify scan --smoke
"""

import logging
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from cosify.console import Command, set_up_logging, show_markdown, typed
from cosify.settings import AT_LEAST_1, FROM_0, flag

if TYPE_CHECKING:
    from cosify.evaluation import KappaScan

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class ScanArguments:
    """Settings of one scan."""

    model: str = flag("", "The classifier. Needed, except with --smoke.")
    data: str = flag("digits", "Images, DATA or DATA:SPLIT. Needed, except with --smoke.")
    limit: int = flag(1000, "Images to look at, drawn at random. Default 1000.", AT_LEAST_1)
    image_column: str | None = flag(None, "Column of images. Default: the only one.")
    label_column: str | None = flag(None, "Column of labels. Default: the only one.")
    image_size: int | None = flag(None, "Side in pixels. Default: the model's own.", AT_LEAST_1)
    batch_size: int | None = flag(None, "Images in a batch. Default 256, on a CPU 8 to 32.", AT_LEAST_1)
    num_workers: int | None = flag(None, "Processes that decode images. Default: by cores.", FROM_0)
    output: str | None = flag(None, "Folder of the result. Default: a new runs/DATE-DATA-MODEL-scan.")
    overwrite: bool = flag(False, "Replace an earlier result there. Default: refuse.")
    smoke: bool = flag(False, "A small random model on synthetic images. Default: off.")


def main(args: ScanArguments) -> None:
    """Pass, scan, report."""
    from rich import get_console

    from cosify.data import load_images, short_name
    from cosify.evaluation import FeaturePass, cache_features, check_label_names, scan_features
    from cosify.files import write_json, write_whole
    from cosify.folders import model_name, new_output, refuse_results
    from cosify.plots import plot_kappa_histogram
    from cosify.training.environment import describe_environment
    from cosify.training.opener import open_model
    from cosify.training.session import device_of_one

    set_up_logging()
    device = device_of_one("scan")
    if args.smoke:
        args = replace(args, data="synthetic")
    name = model_name(args.model)
    data = short_name(args.data)
    output = new_output(args.output, data, f"{name}-scan")
    refuse_results(output / "scan.json", ("scan.md", "kappa.png"), overwrite=args.overwrite)
    model, preprocessing = open_model(args.model, args.image_size, smoke=args.smoke)
    images = load_images(args.data, image_column=args.image_column, label_column=args.label_column)
    check_label_names(model, images.label_names)
    run = FeaturePass(args.batch_size, args.num_workers, show_progress=get_console().is_terminal)
    cache = cache_features(model.to(device), images.only("test", args.limit), preprocessing, output / "features", run)
    scan = scan_features(cache)
    record = {
        "command": typed("scan"),
        "environment": describe_environment(device, 1),
        **asdict(scan),
    }
    write_json(output / "scan.json", record)
    text = markdown(f"{name} on {data}", scan)
    write_whole(output / "scan.md", text)
    plot_kappa_histogram({f"{name} on {data}": cache.ls_kappa().numpy()}, output / "kappa.png")
    show_markdown(text)
    logger.info("files: %s", output)


def markdown(title: str, scan: "KappaScan") -> str:
    """Return the scan as text with two tables."""
    kappa, diversity = scan.kappa, scan.diversity
    measured: dict[str, Any] = {
        "images": f"{scan.num_samples}, {diversity.num_zero} with zero features",
        "classes, dimensions": f"{scan.num_classes}, {scan.dim}",
        "head": scan.head if scan.head_kappa is None else f"{scan.head}, kappa {scan.head_kappa:.2f}",
        "accuracy": "-" if scan.accuracy is None else f"{scan.accuracy:.1%}",
        "kappa*, mean": f"{kappa.mean:.2f}",
        "kappa*, 10 / 50 / 90 percentile": f"{kappa.p10:.2f} / {kappa.median:.2f} / {kappa.p90:.2f}",
        "at the grid's edges": f"{kappa.low_edge:.1%} lower, {kappa.high_edge:.1%} upper",
        "2 kappa*": f"{2 * kappa.mean:.2f}",
        "AdaCos' fixed scale": "-" if scan.adacos is None else f"{scan.adacos:.2f}",
        "closed form, orthogonal classes": f"{scan.expected:.2f} at cosine .75"
        + ("" if scan.expected_here is None else f", {scan.expected_here:.2f} at {scan.mean_top_cosine:.2f} as here"),
        "angle to own class" if scan.accuracy is not None else "angle to nearest class": _deg(
            diversity.mean_class_angle_deg
        ),
        "angle to the span of the classifier": _deg(diversity.mean_span_angle_deg),
        "rank of features": f"{diversity.numerical_rank} of {diversity.dim}, effective "
        + ("-" if diversity.effective_rank is None else f"{diversity.effective_rank:.0f}"),
    }
    lines = [f"# kappa of {title}", ""]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in measured.items()), ""]
    lines += ["| for | kappa | `--kappa` | why |", "| --- | --- | --- | --- |"]
    lines += [f"| {each.purpose} | {each.kappa:.3g} | {each.policy} | {each.reason} |" for each in scan.recommendations]
    lines += ["", *(f"- {warning}" for warning in scan.warnings)]
    return "\n".join(lines).rstrip() + "\n"


def _deg(angle: float | None) -> str:
    return "not defined" if angle is None else f"{angle:.1f} deg"


COMMAND = Command(main, ScanArguments, __doc__, words=("model", "data"), needed=("data",))
