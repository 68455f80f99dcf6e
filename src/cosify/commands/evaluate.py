"""Report accuracy, rejection, calibration and transfer of models.

    cosify evaluate RUN FOLDER
    cosify evaluate softmax=RUN1 LS=RUN2 FOLDER     titles; the last word is DATA
    cosify evaluate RUN FOLDER --ood OTHER --transfer TASK
    cosify evaluate RUN FOLDER --calibrate --rejector z_max

MODEL is a run folder, a folder of cosify.save, timm or transformers, a published backbone, or hf-hub:ORG/NAME.  Several
models are compared; TITLE=MODEL names one in tables and figures.  A set is DATA or DATA:SPLIT.  As the last word,
DATA:SPLIT is all of that split to test on, without training images; of a run on it, the fifth that it held out.

    cosify evaluate softmax=RUN1 LS=RUN2 CIFAR100 --ood CIFAR10 OMNIGLOT --transfer CIFAR10:test
    cosify evaluate hf-hub:ORG/NAME imagenet-1k --ood food101

Several processes share the feature pass:

    accelerate launch -m cosify evaluate RUN FOLDER

See that everything works, in seconds:

    cosify evaluate --smoke

Each model runs once over each set.  Its features are kept in features/ of the result's folder, and used again while
model, data and transform are the same.  The folder then holds evaluation.json, evaluation.md, report.html and figures/.
--rejector z_max saves a rejector beside the weights: cosify.Rejector.load(FOLDER)("a.jpg") gives label, score, accept.
--calibrate saves the kappa that makes the probabilities right, for all programs that open the model; labels stay.
"""

import logging
import re
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosify.console import Command, set_up_logging, show_markdown, typed
from cosify.errors import InputError
from cosify.folders import model_name, new_output, refuse_results, remove_own
from cosify.settings import resolved
from cosify.settings.evaluation import EvaluateArguments

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cosify.data import Preprocessing, Splits
    from cosify.evaluation import FeatureCache, FeaturePass
    from cosify.plots import Subject

logger = logging.getLogger("cosify")

RECORD, PAGES = "evaluation.json", ("evaluation.md", "report.html")


def main(args: EvaluateArguments) -> None:
    """Pass, measure, draw, report."""
    import numpy as np

    from cosify.data import Fingerprint, Shard, load_images, short_name
    from cosify.evaluation import FeaturePass, check_label_names, tables_of, verdict
    from cosify.evaluation.assessment import refuse_other_classes
    from cosify.evaluation.in_words import DEFAULT_SCORE
    from cosify.evaluation.transferability import check_task
    from cosify.hub.resolve import saved_folder
    from cosify.models.classifiers import num_classes_of
    from cosify.plots import draw_figures, find_examples, write_report
    from cosify.training.data_record import from_main
    from cosify.training.environment import describe_environment
    from cosify.training.opener import open_model
    from cosify.training.seen_images import config_of, load_measured, told_leak, told_part
    from cosify.training.session import on_terminal, start_processes

    set_up_logging()
    if args.smoke:
        args = replace(args, models=["smoke"], data="synthetic", ood=["digits"], transfer=["digits"], num_lambdas=3)
    if any((Path(args.data).expanduser() / name).is_file() for name in ("config.json", "export/config.json")):
        raise InputError(
            f"{args.data} is a model or a run, expected images as the last word; write cosify evaluate MODEL DATA"
        )
    models = titled(args.models)
    configs = {title: config_of(spec) for title, spec in models}
    columns = {"image_column": args.image_column, "label_column": args.label_column}
    splits, is_whole = load_measured(args.data, list(configs.values()), **columns)
    check(args, models, len(splits.label_names), is_whole)
    # What cannot be opened, or has other classes, must cost no pass and leave no folder.
    opened = [open_model("" if args.smoke else spec, smoke=args.smoke) for _, spec in models]
    refuse_homeless(args, models)
    for model, _ in opened:
        refuse_other_classes(num_classes_of(model), len(splits.label_names))
        check_label_names(model, splits.label_names)
    if args.calibrate:
        refuse_without_kappa([title for title, _ in models], [model for model, _ in opened])
    others = {data: load_images(data) for data in (*args.ood, *args.transfer)}
    for task in (others[data].only("test", args.limit) for data in args.transfer):
        check_task(np.asarray(task.test[task.label_column][:] if len(task.label_names) > 1 else []))
    accelerator = start_processes()
    shard = Shard(accelerator.process_index, accelerator.num_processes)
    run = FeaturePass(args.batch_size, args.num_workers, shard, accelerator.wait_for_everyone, on_terminal(accelerator))

    def make() -> Path:
        folder = new_output(args.output, short_name(args.data), "evaluation")
        refuse_results(folder / RECORD, PAGES, overwrite=args.overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        if args.overwrite:
            clear(folder, {folder_name(title) for title, _ in models})
        return folder

    output = from_main(accelerator, make)  # now: a wrong name of the folder must not cost a pass
    part = told_part(args.data, is_whole)
    leaks = {title: told_leak(configs[title], args.data, splits, is_whole) for title, _ in models}
    if accelerator.is_main_process:
        if part is not None:
            logger.info("%s", part)
        for title, leak in leaks.items():
            if leak is not None:
                logger.warning("%s: %s", title, leak)
    device, seen = accelerator.device, None if is_whole else splits
    passed = [passes(*each, *opened.pop(0), args, splits, seen, others, run, device, output) for each in models]
    if not accelerator.is_main_process:
        return
    subjects = [measure(one, args) for one in passed]
    for one, subject in zip(passed, subjects, strict=True):  # once all of them are fitted
        if args.rejector is not None and subject.rejector is not None:
            logger.info("rejector: %s", subject.rejector.save(saved_folder(one.spec)))
    facts = {
        "command": typed("evaluate"),
        "data": short_name(args.data),
        "fingerprint": Fingerprint.of_data(args.data, splits).record(),
        "arguments": resolved(args),
        "features": {title: f"features/{folder_name(title)}" for title, _ in models},
        "notes": {title: [line for line in (leak, part) if line is not None] for title, leak in leaks.items()},
        "environment": describe_environment(accelerator.device, shard.world_size),
    }
    figures = draw_figures(subjects, output / "figures", args.classes or None, args.seed)
    outliers = {short_name(data): others[data].only("test", args.limit) for data in args.ood}
    examples = find_examples(subjects, splits.only("test", args.limit), outliers)
    write_report(subjects, figures, output, facts, examples)
    for each in subjects:
        for line in verdict(each.assessment, args.rejector or DEFAULT_SCORE):
            logger.info("%s: %s", each.name, line)
    num_shown = 2 if all(each.assessment.long_tail is None for each in subjects) else 3
    for table in tables_of([each.assessment for each in subjects])[:num_shown]:
        show_markdown(table.markdown())
    logger.info("detection, calibration, transfer and figures: %s", output / "report.html")


def titled(models: list[str]) -> list[tuple[str, str]]:
    """Return title and model of each argument; the title defaults to the last part of the model's path."""
    # A folder's own name may hold "=".
    found = [re.fullmatch(r"()(.+)" if Path(each).exists() else r"(?:([^=/:]+)=)?(.+)", each) for each in models]
    return [(match[1] or model_name(match[2]), match[2]) for match in found if match is not None]


def check(args: EvaluateArguments, models: list[tuple[str, str]], num_classes: int, is_whole: bool = False) -> None:
    """Raise a ValueError for what would fail, or overwrite results, only after hours."""
    from cosify.data import short_name
    from cosify.evaluation.rejector import SAVED
    from cosify.evaluation.scores import SCORES

    folders = [folder_name(title) for title, _ in models]
    same = sorted({title for title, _ in models if folders.count(folder_name(title)) > 1})
    if same or "" in folders:
        raise InputError(f"titles are {[title for title, _ in models]}, expected different words; write TITLE=MODEL")
    others = {*args.ood, *args.transfer}
    if len({short_name(data) for data in others}) < len(others):
        raise InputError(f"two of the sets {sorted(others)} have one name, expected different ones; rename a folder")
    outside = [label for label in (*args.classes, *args.exclude_classes) if not 0 <= label < num_classes]
    if outside:
        raise InputError(f"classes {outside} came, expected indices 0 to {num_classes - 1} of {args.data!r}")
    if len(args.classes) > 10 or len(set(args.classes)) < len(args.classes):
        raise InputError(f"classes is {args.classes}, expected at most 10 different ones: t-SNE has as many colours")
    if args.rejector is not None and args.rejector not in SAVED:
        raise InputError(f"rejector is {args.rejector!r}, expected one of {', '.join(SAVED)}")
    if is_whole and (args.limit_train is not None or (args.rejector and SCORES[args.rejector].needs_train)):
        what = "limit_train" if args.limit_train is not None else f"rejector {args.rejector!r}"
        raise InputError(
            f"{what} needs training images, and {args.data!r} is one split, to measure on, expected DATA with a"
            " training split; drop :SPLIT or the option"
        )


def refuse_homeless(args: EvaluateArguments, models: list[tuple[str, str]]) -> None:
    """Raise a ValueError if what is fitted to a model that was opened has no folder to be saved in."""
    homeless = [spec for _, spec in models if not Path(spec).expanduser().is_dir()]
    if homeless and (args.rejector is not None or args.calibrate):
        what = "a rejector" if args.rejector is not None else "kappa"
        raise InputError(f"model {homeless[0]!r} is no folder to save {what} in; save the model in one first")


def refuse_without_kappa(titles: Sequence[str], models: "Sequence[nn.Module]") -> None:
    """Raise a ValueError if no model has a kappa to calibrate; warn of those that have none."""
    from cosify import find_heads

    softmax = [title for title, model in zip(titles, models, strict=True) if not find_heads(model)]
    if len(softmax) == len(titles):
        raise InputError(
            f"calibrate fits the kappa of a cosine head, and {', '.join(softmax)} has a softmax head, expected a model"
            " with a cosine head; drop --calibrate, or convert the model first"
        )
    for title in softmax:
        logger.warning("%s has a softmax head, without a kappa to fit: its probabilities stay as they are", title)


def folder_name(title: str) -> str:
    """Return the title as the name of a folder."""
    return re.sub(r"[^\w.=-]+", "-", title).strip("-.")


def clear(folder: Path, kept: "Set[str]") -> None:
    """Remove an earlier result, but for the features of models that are still there; files of others stay.

    A pass that is cut short must not leave numbers and figures beside the features of other models.

    Args:
        folder: of the result.
        kept: names of the folders of features that stay.
    """
    from cosify.evaluation.feature_cache import OWN
    from cosify.files import ASIDE
    from cosify.plots.figures import FILES

    for name in (*PAGES, RECORD):
        (folder / name).unlink(missing_ok=True)
    remove_own(folder / "figures", FILES)
    if (folder / "features").is_dir():
        for each in (folder / "features").iterdir():
            if each.name not in kept and not each.is_symlink():
                remove_own(each, [f"*/{name}" for name in (*OWN, *ASIDE)] + [".*.lock"])


@dataclass(frozen=True)
class Passed:
    """The feature caches of a model."""

    title: str
    spec: str
    test: "FeatureCache"
    train: "FeatureCache | None"
    ood: "dict[str, FeatureCache]"
    tasks: "dict[str, FeatureCache]"
    train_counts: "Tensor | None"


def passes(
    title: str,
    spec: str,
    model: "nn.Module",
    preprocessing: "Preprocessing",
    args: EvaluateArguments,
    splits: "Splits",
    training: "Splits | None",
    others: "Mapping[str, Splits]",
    run: "FeaturePass",
    device: Any,
    output: Path,
) -> Passed:
    """Run a model over every set; every process must call this together.

    `training` is `splits`, or None if these have no training split.
    """
    from cosify import find_heads, save
    from cosify.data import short_name
    from cosify.evaluation import cache_features, calibrate
    from cosify.hub.contents import REJECTOR
    from cosify.hub.resolve import saved_folder
    from cosify.models.network_identity import model_digest
    from cosify.training.opener import open_model

    model.to(device)
    caches = output / "features" / folder_name(title)

    def cache(name: str, images: "Splits", limit: int | None = args.limit, part: str = "test") -> "FeatureCache":
        return cache_features(model, images.only(part, limit), preprocessing, caches / name, run)

    if args.calibrate and find_heads(model):
        found = calibrate(model, cache("test", splits))
        if run.shard.rank == 0:
            save(model, saved_folder(spec))
        logger.info("%s: %r", title, found)
        if round(found.after.nll, 3) > round(found.before.nll, 3):  # as they are shown
            logger.warning("this kappa makes the probabilities of the other samples worse; fit it on more test images")
        if args.rejector is None and (saved_folder(spec) / REJECTOR).is_file():
            logger.warning("%s: its rejector was fitted with another kappa and is refused now; fit it anew", title)
        run.wait()
        model = open_model(spec)[0].to(device)
        if run.shard.rank == 0:
            drop_others(caches, model_digest(model))
        run.wait()

    seen, counts = trained_on(spec, training)
    return Passed(
        title,
        spec,
        test=cache("test", splits),
        train=None if seen is None else cache("train", seen, args.limit_train, "train"),
        ood={short_name(data): cache(f"other-{short_name(data)}", others[data]) for data in args.ood},
        tasks={short_name(data): cache(f"other-{short_name(data)}", others[data]) for data in args.transfer},
        train_counts=counts,
    )


def drop_others(caches: Path, model: str) -> None:
    """Remove the feature caches of a folder that are not of this model, a digest: their logits have another kappa."""
    from cosify.evaluation import FeatureCache, StaleCacheError
    from cosify.evaluation.feature_cache import OWN

    for folder in caches.iterdir():
        with suppress(FileNotFoundError, StaleCacheError):  # the pass says what it finds there
            if FeatureCache.open(folder).info.key.model != model:
                remove_own(folder, OWN)


def trained_on(spec: str, splits: "Splits | None") -> "tuple[Splits | None, Tensor | None]":
    """Return the data, and how many training images of each class a run saw, [C]; of another model, those of the data.

    If the run made its classes long-tailed and these are its data, the training split is what it saw.  Without data,
    the number of another model's training images is not known.
    """
    import torch

    from cosify.training.data_record import as_trained
    from cosify.training.seen_images import config_of

    config = config_of(spec)
    settings, counts = config["arguments"], config.get("fingerprint", {}).get("train", {}).get("counts")
    if splits is None:
        return None, None if counts is None else torch.tensor(counts)
    found = counts_of(splits) if counts is None else torch.tensor(counts)
    if settings.get("imbalance") is None:
        return splits, found
    with suppress(InputError):  # other data, of too few images
        seen = as_trained(splits, settings)
        if counts == counts_of(seen).tolist():
            return seen, found
    logger.warning("%s was trained on other images, of uneven classes; scores are fitted on those of the data", spec)
    return splits, found


def counts_of(splits: "Splits") -> "Tensor":
    """Return how many training images each class has, [C]."""
    import torch

    labels = torch.tensor(splits.train[splits.label_column][:])
    return labels.bincount(minlength=len(splits.label_names))


def measure(passed: Passed, args: EvaluateArguments) -> "Subject":
    """Measure one model from its caches, and fit its rejector."""
    import numpy as np

    from cosify.evaluation import Rejector, assess, transfer
    from cosify.evaluation.in_words import DEFAULT_SCORE
    from cosify.evaluation.logistic_probe import LAMBDAS
    from cosify.plots import Subject
    from cosify.training.seen_images import run_of

    chosen = np.linspace(0, len(LAMBDAS) - 1, min(args.num_lambdas, len(LAMBDAS))).round().astype(int)
    lambdas = [LAMBDAS[index] for index in chosen]
    assessment = assess(
        passed.title,
        passed.test,
        passed.train,
        ood=passed.ood,
        transfer={name: transfer(task, seed=args.seed, lambdas=lambdas) for name, task in passed.tasks.items()},
        train_counts=passed.train_counts,
        id_subset=args.id_subset,
        exclude_classes=args.exclude_classes,
        resamples=args.resamples,
        seed=args.seed,
    )
    folder = run_of(passed.spec)
    rejector = None
    if args.rejector is not None or passed.test.correct.any():
        rejector = Rejector.fit(args.rejector or DEFAULT_SCORE, passed.train, passed.test)
    run = folder if (folder / "metrics.jsonl").is_file() else None
    return Subject(assessment, passed.test, passed.ood, run, rejector, passed.train_counts)


COMMAND = Command(
    main,
    EvaluateArguments,
    __doc__,
    words=("models", "data"),
    needed=("models", "data"),
    shown=("models", "data", "ood", "transfer", "calibrate", "rejector", "limit", "batch_size", "output", "overwrite"),
)
