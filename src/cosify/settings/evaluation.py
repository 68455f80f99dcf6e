"""Settings of `cosify evaluate`."""

from dataclasses import dataclass
from typing import Literal

from cosify.settings.rules import AT_LEAST_1, FROM_0, SEED, Rule, flag


@dataclass(frozen=True)
class EvaluateArguments:
    """Settings of one evaluation."""

    models: list[str] = flag([], "Models, each as MODEL or TITLE=MODEL. Needed, except with --smoke.")
    data: str = flag(
        "digits",
        "Data that they were trained on; the last word. DATA:SPLIT is all of a split to test on. Needed, except with"
        " --smoke.",
    )
    ood: list[str] = flag([], "Outlier sets, DATA or DATA:SPLIT. Default: none.")
    transfer: list[str] = flag([], "Other tasks, DATA or DATA:SPLIT. A fifth of each tests the probe. Default: none.")
    image_column: str | None = flag(None, "Column of images. Default: the only one.")
    label_column: str | None = flag(None, "Column of labels of --data. Default: the only one.")
    limit_train: int | None = flag(None, "Training images that scores are fitted on. Default: all.", AT_LEAST_1)
    limit: int | None = flag(None, "Images of each set, except the training split. Default: all.", AT_LEAST_1)
    num_lambdas: int = flag(45, "Penalties to try for each probe, from 1e5 down to 1e-6. Default 45.", AT_LEAST_1)
    id_subset: Literal["correct", "all"] = flag(
        "correct", "Test images to tell from outliers: those predicted right, as in the paper, or all."
    )
    exclude_classes: list[int] = flag([], "Indices of classes to leave out: outlier sets hold them too. Default: none.")
    classes: list[int] = flag([], "Classes in the t-SNE figure: at most 10 indices. Default: the first.")
    rejector: str | None = flag(None, "Save a rejector with this score, such as z_max. Default: none.")
    calibrate: bool = flag(
        False, "Save the kappa that makes probabilities right. It is fitted on half of the test images. Default: off."
    )
    batch_size: int | None = flag(None, "Images in a batch on each process. Default 256, on a CPU 8 to 32.", AT_LEAST_1)
    num_workers: int | None = flag(None, "Processes that decode images. Default: by cores.", FROM_0)
    resamples: int = flag(
        1000, "Resamples of the bootstrap. Default 1000.", Rule(lambda value: value >= 100, "at least 100")
    )
    seed: int = flag(0, "Seed of bootstrap, probes and t-SNE. Default 0.", SEED)
    output: str | None = flag(None, "Folder of the result. Default: a new runs/DATE-DATA-evaluation.")
    overwrite: bool = flag(False, "Replace an earlier result there. Default: refuse.")
    smoke: bool = flag(False, "A small random model on synthetic images. Default: off.")
