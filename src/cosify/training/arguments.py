"""What a training run can be told: the flags of each script.  A recipe file can set these and those of `Recipe`."""

from dataclasses import dataclass
from typing import Any, Literal

from cosify.data import Augment
from cosify.errors import InputError
from cosify.heads import resolve_policy
from cosify.training.recipe import Recipe, setting

Head = Literal["cos", "linear"]
Precision = Literal["no", "bf16", "fp16"]
KAPPA_HELP = (
    "ls, ml, rule, trainable, adacos, adacos-dynamic, or a fixed number above 0. kappa multiplies the cosine"
    " (1 / temperature, no unit). Default: ls, the estimate of the paper's Eq. 11."
)
BLOCKS_HELP = (
    "What trains: all, head, or a number N for the head and the last N stages; batch norms of frozen ones stay as they"
    " are."
)


@dataclass(frozen=True)
class RunArguments(Recipe):
    """Flags that every training script has."""

    data: str = setting(
        "digits",
        "digits, two-digits, synthetic, a folder with train.parquet and test.parquet, a folder with train/CLASS/*.png"
        " and test/CLASS/*.png, or a data set id on the Hugging Face hub; DATA:SPLIT for one split, of which a fifth"
        " tests. Default: the 1,797 digits of scikit-learn, which need no download.",
    )
    image_column: str | None = setting(None, "Name of the column of images. Default: the only one of that type.")
    label_column: str | None = setting(
        None, "Name of the column of class indices. Default: the only ClassLabel column."
    )
    image_size: int | None = setting(
        None,
        "Side of the images in pixels. Default: as stored, or the model's own size where images differ; 32 for digits"
        " with the default model, whose stem divides it by 4.",
    )
    limit_train: int | None = setting(None, "Train on this many images, the same ones for every seed. Default: all.")
    augment: Augment = setting(
        "auto",
        "timm: timm's transform, random crop of random scale, mirroring, colours. crop-flip: shift by up to an eighth"
        " of the side, mirroring. crop: the shift alone, for text of your own. Default auto: crop-flip for small images"
        " that are all alike, without mirroring for the built-in digits; timm for others.",
    )
    epochs: int = setting(30, "Passes over the training set. Default 30: enough for the digits.")
    batch_size: int = setting(
        128, "Images of a batch on each process. Default 128: usual for CIFAR at a learning rate of 0.1."
    )
    optimizer: str = setting("sgd", "Any optimiser of timm. Default sgd: with Nesterov momentum, usual for ResNets.")
    lr: float = setting(0.1, "Peak learning rate. Default 0.1: fits SGD with batches of 128; use 1e-3 for adamw.")
    weight_decay: float = setting(
        5e-4, "Weight decay; none on vectors, so none on a trainable kappa. Default 5e-4: usual for CIFAR."
    )
    mixed_precision: Precision = setting(
        "no", "no (float32), bf16 or fp16 (CUDA). Default no: exact; bf16 pays on GPUs and on CPUs with bf16 units."
    )
    seed: int = setting(0, "Of weights, order and augmentation. Default 0.")
    output: str | None = setting(None, "Run folder. Default: runs/DATE-DATA-MODEL-KAPPA, new for every run.")
    overwrite: bool = setting(False, "Replace an earlier run in the run folder. Default: refuse, so that none is lost.")
    resume: str | None = setting(
        None, "Run folder to go on with, with the settings of its config.json. Default: start a new run."
    )
    tracker: str = setting(
        "auto", "Any tracker of Accelerate, such as wandb, or none. Default auto: TensorBoard if installed."
    )
    smoke: bool = setting(False, "Ten epochs on synthetic images, to see that everything works. Default: off.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("image_size", "limit_train"):
            value = getattr(self, name)
            self._check(name, value is None or value >= 1, "at least 1, or nothing")
        self._check("lr", self.lr > 0, "a number above 0")
        self._check("weight_decay", self.weight_decay >= 0, "a number from 0 on")
        self._check("seed", self.seed >= 0, "a whole number from 0 on")
        warmup = self.warmup_epochs
        self._check("warmup_epochs", warmup is None or 0 <= warmup < self.epochs, f"0 to epochs ({self.epochs})")
        if self.smoke and self.data not in ("digits", "synthetic"):
            raise InputError(f"smoke trains on synthetic images, but data is {self.data!r}; drop one of them")
        if (self.mixup > 0 or self.cutmix > 0) and self.batch_size % 2 == 1:
            raise InputError(f"batch_size is {self.batch_size}, expected an even number: mixup and cutmix pair images")

    def _check(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            where = f"{name} in the recipe" if name in Recipe.__dataclass_fields__ else f"--{name.replace('_', '-')}"
            raise InputError(f"{name} is {getattr(self, name)!r}, expected {expected}; change {where}")

    @property
    def warmup(self) -> float:
        """Epochs of warm-up, with the default resolved."""
        return min(1.0, self.epochs / 2) if self.warmup_epochs is None else self.warmup_epochs


@dataclass(frozen=True)
class TrainArguments(RunArguments):
    """Settings of a run from scratch, or from timm's pretrained weights."""

    model: str | None = setting(
        None,
        "Any timm model name. Default: a narrow resnet10t for the built-in sets (a stock architecture that opens"
        " anywhere and trains in seconds), resnet18_cifar for other data.",
    )
    model_kwargs: list[str] = setting([], "Arguments of the model as key=value, for example width=0.25. Default: none.")
    pretrained: bool = setting(False, "Start from timm's pretrained weights. Default: from scratch, as in the paper.")
    head: Head = setting(
        "cos", "cos: cosine-softmax. linear: the model's own softmax head, the baseline. Default: cos."
    )
    kappa: str = setting("ls", KAPPA_HELP)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_head(self.head, self.kappa, self.has_margin)


@dataclass(frozen=True)
class FinetuneArguments(RunArguments):
    """Settings of a run from a published or local backbone."""

    model: str = setting(
        "", "Folder that cosify.save or timm wrote, a timm model name, or hf-hub:ORG/NAME. Needed, except with --smoke."
    )
    head: Head = setting(
        "linear", "Head for the new classes: linear (softmax) or cos. Default linear, as in the paper."
    )
    kappa: str = setting("ls", KAPPA_HELP)
    blocks: str = setting("all", BLOCKS_HELP + " Default: all.")
    lr: float = setting(0.01, "Peak learning rate. Default 0.01: a tenth of that from scratch.")
    weight_decay: float = setting(1e-5, "Weight decay; none on vectors. Default 1e-5, as is usual for fine-tuning.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_head(self.head, self.kappa, self.has_margin)
        check_blocks(self.blocks)


@dataclass(frozen=True)
class CosifyArguments(RunArguments):
    """Settings of a run that gives a softmax-pretrained model a cosine head."""

    model: str = setting(
        "", "timm model name (its pretrained weights are used), efficientnet-lite0 for the weights of the extra"
        " cosify[demo], a folder, or hf-hub:ORG/NAME. Needed, except with --smoke."
    )  # fmt: skip
    kappa: str = setting("ls", KAPPA_HELP)
    blocks: str = setting("all", BLOCKS_HELP + " Default: all.")
    max_drop: float = setting(
        0.05, "Stop when accuracy falls this far below the model's own, in [0, 1]. Default 0.05. 1 for never."
    )
    lr: float = setting(0.01, "Peak learning rate. Default 0.01: a tenth of that from scratch.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_head("cos", self.kappa, self.has_margin)
        check_blocks(self.blocks)
        self._check("max_drop", 0 <= self.max_drop <= 1, "a share in [0, 1]")


def kappa_policy(kappa: str) -> float | str:
    """Return `kappa` as heads take it: a number where it reads as one, else the name of a policy."""
    try:
        return float(kappa)
    except ValueError:
        return kappa


def check_head(head: Any, kappa: str, has_margin: bool) -> None:
    """Raise a ValueError if kappa is none, or has no head to belong to."""
    if head == "linear" and kappa != "ls":
        raise InputError(f"kappa is {kappa!r} with head linear, which has no kappa; use head cos or drop kappa")
    if head == "linear" and has_margin:
        raise InputError("a margin is set with head linear, which has no cosine; use head cos or drop the margin")
    resolve_policy(kappa_policy(kappa))


def check_blocks(blocks: str) -> None:
    """Raise a ValueError unless `blocks` reads all, head, or a number from 1 on."""
    if blocks not in ("all", "head") and not (blocks.isdigit() and int(blocks) >= 1):
        raise InputError(f"blocks is {blocks!r}, expected all, head, or a number of stages from 1 on; change --blocks")
