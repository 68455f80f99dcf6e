"""Linear probe: train a classifier on the frozen features of a model.

    cosify probe tf_efficientnet_lite0.cos_2ls_in1k_ft_tinyin200 FOLDER
    cosify probe RUN FOLDER
    cosify probe resnet50 FOLDER

The protocol is that of the paper's Table 4, logistic regression.  MODEL is a run of `cosify train` (or its export/),
a folder of cosify.save, hf-hub:ORG/NAME, or a timm name.

Several processes share the feature pass; the main one fits:

    accelerate launch -m cosify probe MODEL FOLDER
    torchrun --nproc-per-node 2 -m cosify probe MODEL FOLDER

See that everything works, in seconds:

    cosify probe --smoke

Features are taken in evaluation mode, without augmentation, and standardised by mean and deviation of the training
split.  The penalty lambda is chosen on a held-out part of that split; the test split is used once.  The folder of the
result then holds config.json, environment.json, metrics.jsonl and the features.
"""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cosify.console import Command, set_up_logging, show, two_columns
from cosify.settings import AT_LEAST_1, FROM_0, SEED, Rule, flag

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class ProbeArguments:
    """Settings of one probe."""

    model: str = flag("", "The backbone. Needed, except with --smoke.")
    data: str = flag("digits", "Images, as for cosify train. Needed, except with --smoke.")
    image_column: str | None = flag(None, "Column of images. Default: the only one.")
    label_column: str | None = flag(None, "Column of labels. Default: the only one.")
    image_size: int | None = flag(None, "Side in pixels. Default: the backbone's own.", AT_LEAST_1)
    limit_train: int | None = flag(None, "Fit on this many images. Default: all.", AT_LEAST_1)
    batch_size: int | None = flag(None, "Images in a batch on each process. Default 256, on a CPU 8 to 32.", AT_LEAST_1)
    num_workers: int | None = flag(None, "Processes that decode images. Default: by cores.", FROM_0)
    scaling: Literal["standardize", "raw", "l2"] = flag(
        "standardize", "Scaling of the features. Compare backbones under the same one. Default standardize."
    )
    hold_out: float = flag(
        0.2,
        "Share of the training split that chooses lambda. Default 0.2.",
        Rule(lambda value: 0 < value < 1, "a share between 0 and 1"),
    )
    seed: int = flag(0, "Seed of the held-out part. Default 0.", SEED)
    output: str | None = flag(None, "Folder of the result. Default: a new runs/DATE-DATA-MODEL-probe.")
    overwrite: bool = flag(False, "Replace an earlier result there. Default: refuse.")
    smoke: bool = flag(False, "Random features of synthetic images. Default: off.")


def main(args: ProbeArguments) -> None:
    """Extract, fit, report."""
    from cosify.data import Shard, load_splits, short_name
    from cosify.evaluation import FeaturePass, cache_features, linear_probe
    from cosify.evaluation.rows import to_tensor
    from cosify.folders import model_name, new_output
    from cosify.training import RunFolder
    from cosify.training.data_record import from_main
    from cosify.training.environment import describe_environment
    from cosify.training.opener import open_model
    from cosify.training.session import on_terminal, start_processes

    set_up_logging()
    if args.smoke:
        args = replace(args, data="synthetic")
    accelerator = start_processes()
    shard = Shard(accelerator.process_index, accelerator.num_processes)
    model, preprocessing = open_model(args.model, args.image_size, smoke=args.smoke)
    model.to(accelerator.device)
    splits = load_splits(args.data, image_column=args.image_column, label_column=args.label_column)
    splits = splits if args.limit_train is None else splits.limit_train(args.limit_train)
    config = {"script": "ProbeArguments", "arguments": asdict(args), "world_size": shard.world_size}
    made: list[RunFolder] = []

    def make() -> Path:
        folder = new_output(args.output, short_name(args.data), f"{model_name(args.model)}-probe")
        made.append(RunFolder.create(folder, config, overwrite=args.overwrite))
        made[0].write_environment(describe_environment(accelerator.device, shard.world_size))
        return made[0].path

    features = from_main(accelerator, make) / "features"  # first: an error about the folder must not come after hours
    run = FeaturePass(args.batch_size, args.num_workers, shard, accelerator.wait_for_everyone, on_terminal(accelerator))
    caches = [
        cache_features(model, splits.only(name), preprocessing, features / name, run) for name in ("train", "test")
    ]
    if not accelerator.is_main_process:
        return
    train, test = [(to_tensor(cache.embedding), to_tensor(cache.labels)) for cache in caches]
    logger.info("features: %d train, %d test, %d dimensions", len(train[0]), *test[0].shape)
    result = linear_probe(
        *train,
        *test,
        num_classes=len(splits.label_names),
        hold_out=args.hold_out,
        seed=args.seed,
        scaling=args.scaling,
    )
    made[0].append_metrics({"kind": "probe", "step": 0, **asdict(result)})
    made[0].put_in_place()
    show(two_columns("linear probe", summary(result, made[0].path)))


def summary(result: Any, folder: Path) -> dict[str, Any]:
    """Return the rows of the table that ends the run."""
    return {
        "test accuracy": f"{result.top1:.2%} of {result.num_test}",
        "mean over classes": f"{result.mean_per_class:.2%} of {result.num_test_classes} classes",
        "lambda": f"{result.best_lambda:.3g}, of {len(result.lambdas)} on {result.num_validation} held-out images",
        "features": result.scaling,
        "converged": "yes" if result.converged else "no",
        "folder": folder,
    }


COMMAND = Command(
    main,
    ProbeArguments,
    __doc__,
    words=("model", "data"),
    needed=("data",),
    shown=("model", "data", "image_size", "limit_train", "batch_size", "scaling", "output", "overwrite"),
)
