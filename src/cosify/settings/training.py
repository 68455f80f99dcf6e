"""Settings of the training commands: flags for what people change often, keys of a recipe for the rest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from cosify.errors import InputError
from cosify.settings.rules import ABOVE_0, AT_LEAST_1, FROM_0, SEED, SHARE, Rule, check, flag, key, wrong
from cosify.settings.transform import Augment, Pipeline, check_transform

Head = Literal["cos", "linear"]
Precision = Literal["no", "bf16", "fp16"]
Schedule = Literal["cosine", "step", "multistep", "poly", "constant"]
Balance = Literal["none", "loss", "sampling", "sqrt-sampling", "logits"]
Export = Literal["last", "best"]
ClassifierStart = Literal["none", "means", "probe"]
AutoStart = Literal["auto", ClassifierStart]
KAPPA_HELP = (
    "A number, or a policy such as ls. kappa multiplies the cosine (1 / temperature, no unit). A number above 0 fixes"
    " it; the policies are ls, 2ls, ml, rule, trainable, adacos and adacos-dynamic. Default: ls, the estimate of the"
    " paper's Eq. 11."
)
HEAD_START_HELP = (
    "Where the classifier begins. means: at the mean features of the classes, centred; for cosine heads. probe: trained"
    " alone first, on the features of one pass, so that the network forgets less. none:"
)
BLOCKS_HELP = (
    "What trains: all, head, or the last N stages. With N the head trains too; batch norms of frozen stages keep their"
    " statistics. Default: all."
)
BLOCKS = Rule(
    lambda value: value in ("all", "head") or (value.isdecimal() and int(value) >= 1),
    "all, head, or a number of stages from 1 on",
)
# Optimisers of timm that treat each number alone: a part of a weight takes the steps that it takes within the whole.
ELEMENTWISE = (
    "sgd", "momentum", "nesterov", "adam", "adamw", "adamax", "nadam", "nadamw", "radam", "adan", "adopt", "laprop",
    "lion", "adabelief", "adadelta", "adagrad", "madgrad", "rmsprop", "rmsproptf",
)  # fmt: skip


@dataclass(frozen=True)
class RunArguments:
    """Settings that all training commands share."""

    data: str = flag(
        "digits",
        "A folder, a data set of the hub, or digits. A folder holds train/CLASS/*.png and test/CLASS/*.png, or"
        " train.parquet and test.parquet. PREFIX@ROOT is lists of 'path label', PREFIX_train.txt and PREFIX_test.txt,"
        " of images below ROOT. DATA:SPLIT takes one split and keeps a fifth of it for the test. two-digits and"
        " synthetic are generated. Default of cosify train: the 1,797 digits of scikit-learn, which need no download.",
    )
    image_column: str | None = flag(None, "Name of the column of images. Default: the only one of that type.")
    label_column: str | None = flag(None, "Name of the column of class indices. Default: the only ClassLabel column.")
    image_size: int | None = flag(
        None,
        "Side of the images in pixels. Default: as stored if all images have one size, else the model's own size; 32"
        " for digits with the default model, whose stem divides the side by 4.",
        AT_LEAST_1,
    )
    limit_train: int | None = flag(
        None, "Train on this many images, the same ones for every seed. Default: all.", AT_LEAST_1
    )
    augment: Augment = flag(
        "auto",
        "Augmentation of the training images. timm: timm's transform, with random crops of random scale, mirroring and"
        " colour changes. crop-flip: a shift by up to an eighth of the side, and mirroring. crop: the shift without"
        " mirroring, for images of text. flip: mirroring alone, for aligned faces. Default auto: crop-flip for small"
        " images of one size, crop for the built-in digits, timm for others.",
    )
    epochs: int = flag(30, "Passes over the training set. Default 30: enough for the digits.", AT_LEAST_1)
    batch_size: int = flag(
        128, "Images in a batch on each process. Default 128: usual for CIFAR at a learning rate of 0.1.", AT_LEAST_1
    )
    optimizer: str = flag("sgd", "Any optimiser of timm. Default sgd: with Nesterov momentum, usual for ResNets.")
    lr: float = flag(0.1, "Peak learning rate. Default 0.1: fits SGD with batches of 128; use 1e-3 for adamw.", ABOVE_0)
    weight_decay: float = flag(
        5e-4, "Weight decay; none on vectors, so none on a trainable kappa. Default 5e-4: usual for CIFAR.", FROM_0
    )
    mixed_precision: Precision = flag(
        "no",
        "Precision: no (float32), bf16, or fp16 (CUDA alone). Default no: exact; bf16 is faster on GPUs, and on CPUs"
        " that have instructions for it.",
    )
    seed: int = flag(0, "Seed of weights, order and augmentation. Default 0.", SEED)
    output: str | None = flag(
        None, "Run folder; without it, a new one under runs/. Default: runs/DATE-DATA-MODEL-KAPPA."
    )
    overwrite: bool = flag(False, "Replace an earlier run in the run folder. Default: refuse, so that none is lost.")
    resume: str | None = flag(
        None, "Run folder to continue, with the settings of its config.json. Default: start a new run."
    )
    tracker: str = flag(
        "auto", "Any tracker of Accelerate, such as wandb, or none. Default auto: TensorBoard if installed."
    )
    smoke: bool = flag(False, "Ten epochs on synthetic images, to see that everything works. Default: off.")
    # optimisation
    momentum: float = key(0.9, "Momentum of the optimiser, no unit. Default 0.9: the usual one.", FROM_0)
    schedule: Schedule = key("cosine", "Learning-rate schedule after the warm-up. Default cosine: falls to min_lr.")
    warmup_epochs: float | None = key(
        None, "Epochs of linear warm-up, which large kappas need. Default: 1, or half of a run of less than 2 epochs."
    )
    min_lr: float = key(0.0, "Learning rate at the end of the schedules cosine and poly. Default 0.", FROM_0)
    decay_epochs: float = key(
        30.0, "Epochs between two decays of the schedule step. Default 30, as for ImageNet.", ABOVE_0
    )
    decay_milestones: list[int] = key(
        [], "Epochs at which the schedule multistep decays, ascending, such as [160, 180]. Default: none."
    )
    decay_rate: float = key(
        0.1, "Factor of each decay of step and multistep, or the power of poly. Default 0.1.", ABOVE_0
    )
    head_lr: float = key(
        1.0,
        "Learning rate of the classifier in multiples of lr, such as 10 for a new one. Default 1: the same.",
        ABOVE_0,
    )
    clip_grad_norm: float | None = key(None, "Clip the gradient to this norm. Default: no clipping.", ABOVE_0)
    accumulate: int = key(1, "Batches whose gradients are accumulated for one optimiser step. Default 1.", AT_LEAST_1)
    ema_decay: float | None = key(
        None,
        "Decay per step of an EMA of the weights, such as 0.9999; the EMA is evaluated and exported. Default: no EMA.",
        Rule(lambda value: 0 < value < 1, "a number between 0 and 1"),
    )
    # loss
    label_smoothing: float = key(
        0.0,
        "Share of the target that is spread over all classes, in [0, 1). Default 0.",
        Rule(lambda value: 0 <= value < 1, "a share in [0, 1)"),
    )
    cosine_margin: float = key(0.0, "CosFace margin on the target cosine, such as 0.35. Default 0.", FROM_0)
    angular_margin: float = key(0.0, "ArcFace margin on the target angle, radians, such as 0.5. Default 0.", FROM_0)
    class_parallel: bool = key(
        False,
        "Spread the classes over the processes of torchrun: each holds and trains its share of the cosine head's"
        " weight. Kappa, loss and steps are those of one process. For 10^5 classes and more; the main memory, not that"
        " of the GPU, must hold the whole weight. Default: off.",
    )
    balance: Balance = key(
        "none",
        "What rare classes get. loss: a larger weight in it. sampling: they are drawn as often as others."
        " sqrt-sampling: classes are drawn by the square root of their size. logits: the log of the classes' shares is"
        " added to the logits in training (balanced softmax). Default none.",
    )
    # augmentation
    transform: dict[str, Any] = key({}, "Arguments of timm.data.create_transform, such as {auto_augment: rand-m9}.")
    random_erasing: float = key(0.0, "Probability that a rectangle of an image is erased. Default 0.", SHARE)
    mixup: float = key(0.0, "Alpha of mixup, from 0 on. Default 0: off.", FROM_0)
    cutmix: float = key(0.0, "Alpha of cutmix, from 0 on. Default 0: off.", FROM_0)
    mix_off_epochs: int = key(0, "How many epochs at the end go without mixup and cutmix. Default 0.", FROM_0)
    # data
    pipeline: Pipeline = key(
        "auto",
        "device: decode once and keep the images on the device. workers: decode in worker processes, as needed. Default"
        " auto: chosen by the size of the images and of the set.",
    )
    num_workers: int | None = key(
        None, "Workers that decode images, on each process. Default: its share of the cores, at most 8.", FROM_0
    )
    streaming: bool = key(False, "Read rows as they are needed instead of storing the set. Default: off.")
    test_split: str | None = key(
        None,
        "Split that a run is evaluated on, such as val, to choose by it and keep test. Default: test, if it is there.",
    )
    num_train: int | None = key(
        None, "Number of images in a streamed training split. Default: the stream states its length.", AT_LEAST_1
    )
    imbalance: float | None = key(
        None,
        "Make the training split long-tailed, as CIFAR-100-LT is: this many images of the first class for each of the"
        " last, such as 100. Default: the split as it is.",
        Rule(lambda value: 1 <= value < math.inf, "a number from 1 on"),
    )
    # execution
    compile: bool = key(False, "torch.compile the network. Default: off; it takes minutes at the start.")
    grad_checkpointing: bool = key(False, "Recompute activations in the backward pass to save memory. Default: off.")
    wait_minutes: float = key(
        30.0,
        "Minutes that a process waits for another before it gives up. Default 30; raise it for data that take longer to"
        " prepare.",
        ABOVE_0,
    )
    freeze_norms: bool = key(
        False, "Batch norms keep their statistics; their scale and shift train on. For trained networks. Default: off."
    )
    sync_batch_norm: bool = key(False, "Compute batch norm statistics over all processes, on CUDA alone. Default: off.")
    # evaluation and checkpoints
    eval_every_epochs: int = key(1, "Epochs between evaluations; the last epoch always has one. Default 1.", AT_LEAST_1)
    eval_every_steps: int | None = key(
        None, "Steps between further evaluations, within epochs. Default: off.", AT_LEAST_1
    )
    save_every_steps: int | None = key(
        None, "Steps between further checkpoints, within epochs. Default: off.", AT_LEAST_1
    )
    early_stop_evaluations: int | None = key(
        None, "Stop after this many evaluations without a better one. Default: off.", AT_LEAST_1
    )
    export: Export = key("last", "Weights to export: of the last step, or of the best evaluation. Default last.")

    def __post_init__(self) -> None:
        check(self)
        mixes = self.mixup > 0 or self.cutmix > 0
        if self.warmup_epochs is not None and not 0 <= self.warmup_epochs < self.epochs:
            raise wrong(self, "warmup_epochs", f"0 to epochs ({self.epochs})")
        if self.schedule == "multistep" and not (self.decay_milestones and _ascend([0, *self.decay_milestones])):
            raise wrong(self, "decay_milestones", "epochs, such as [160, 180], above 0 and ascending")
        if mixes and self.mix_off_epochs >= self.epochs:
            raise wrong(self, "mix_off_epochs", f"below epochs ({self.epochs}), or mixup and cutmix are never on")
        if self.smoke and self.data not in ("digits", "synthetic"):
            raise InputError(f"smoke trains on synthetic images, but data is {self.data!r}; drop one of them")
        if mixes and self.batch_size % 2 == 1:
            raise InputError(f"batch_size is {self.batch_size}, expected an even number: mixup and cutmix pair images")
        if mixes and self.from_embeddings:
            raise InputError(
                f"mixup is {self.mixup} and cutmix {self.cutmix} with {self._why}, which needs one label for each"
                f" image; drop {self._why.removeprefix('a ')}, or mixup and cutmix"
            )
        if self.balance == "logits" and self.from_embeddings:
            raise InputError(
                f"balance is 'logits' with {self._why}, whose loss never holds all logits; drop"
                f" {self._why.removeprefix('a ')}, or use balance loss or sampling"
            )
        if self.compile and self.from_embeddings:
            raise InputError(
                f"compile is on with {self._why}, whose loss goes around the compiled forward; drop one of them"
            )
        if self.class_parallel:
            self._check_class_parallel()
        if self.transform:
            check_transform(self.transform)

    def _check_class_parallel(self) -> None:
        if self.optimizer.lower() not in ELEMENTWISE:
            raise wrong(
                self,
                "optimizer",
                f"one of {', '.join(ELEMENTWISE)} with class_parallel: others look at a weight as a whole, of which"
                " each process holds a part",
            )
        if self.mixed_precision == "fp16":  # each process would skip steps of its own
            raise wrong(self, "mixed_precision", "bf16 or no with class_parallel")

    @property
    def has_margin(self) -> bool:
        """Whether there is a margin."""
        return self.cosine_margin > 0 or self.angular_margin > 0

    @property
    def from_embeddings(self) -> bool:
        """Whether the loss is the embedding-level one, which never holds all logits."""
        return self.has_margin or self.class_parallel

    @property
    def _why(self) -> str:
        """What makes the loss the embedding-level one."""
        return "a margin" if self.has_margin else "class_parallel"

    @property
    def warmup(self) -> float:
        """Epochs of warm-up, with the default resolved."""
        return min(1.0, self.epochs / 2) if self.warmup_epochs is None else self.warmup_epochs


@dataclass(frozen=True)
class TrainArguments(RunArguments):
    """Settings of a run from scratch, or from timm's pretrained weights."""

    model: str | None = flag(
        None,
        "A timm model. Default: a narrow resnet10t for the built-in sets (a stock architecture that opens"
        " anywhere and trains in seconds), resnet18_cifar for other data.",
    )
    model_kwargs: list[str] = flag([], "Arguments of the model as key=value, for example width=0.25. Default: none.")
    pretrained: bool = flag(False, "Start from timm's pretrained weights. Default: from scratch, as in the paper.")
    head: Head = flag("cos", "linear: the model's own softmax, the baseline. cos: cosine-softmax. Default: cos.")
    kappa: str = flag("ls", KAPPA_HELP)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_head(self.head, self.kappa, self.has_margin, self.class_parallel)
        if self.freeze_norms and not self.pretrained:
            raise InputError(
                "freeze_norms is on with random weights, whose batch norms have no statistics yet; add --pretrained, or"
                " drop it"
            )


@dataclass(frozen=True)
class FinetuneArguments(RunArguments):
    """Settings of a run from a published or local backbone."""

    model: str = flag(
        "",
        "A published backbone, run, folder, timm or hub name. The folder is one that cosify.save or timm wrote; the hub"
        " name is hf-hub:ORG/NAME. Needed, except with --smoke.",
    )
    head: Head = flag("linear", "Head for the new classes; linear is softmax. Default linear, as in the paper.")
    kappa: str = flag("ls", KAPPA_HELP)
    blocks: str = flag("all", BLOCKS_HELP, BLOCKS)
    batch_size: int = flag(
        32, "Images in a batch on each process. Default 32: with few pictures, larger ones leave too few steps.",
        AT_LEAST_1,
    )  # fmt: skip
    lr: float = flag(0.01, "Peak learning rate. Default 0.01: a tenth of that from scratch.", ABOVE_0)
    weight_decay: float = flag(
        1e-5, "Weight decay; none on vectors. Default 1e-5, as is usual for fine-tuning.", FROM_0
    )
    head_start: ClassifierStart = key("none", HEAD_START_HELP + " at random. Default none.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_head(self.head, self.kappa, self.has_margin, self.class_parallel)
        if self.head == "linear" and self.head_start == "means":
            raise InputError("head_start is 'means' with head linear, expected a cosine head; use head cos, or probe")
        _check_head_start(self)


@dataclass(frozen=True)
class CosifyArguments(RunArguments):
    """Settings of a run that gives a softmax-pretrained model a cosine head."""

    model: str = flag(
        "",
        "A softmax model: timm name, run, folder or hub name. A timm name brings its pretrained weights; a hub name is"
        " hf-hub:ORG/NAME; efficientnet-lite0 has the weights of the extra cosify[demo]. Needed, except with --smoke.",
    )
    kappa: str = flag("ls", KAPPA_HELP)
    blocks: str = flag("all", BLOCKS_HELP, BLOCKS)
    max_drop: float = flag(
        0.05,
        "Stop when accuracy drops by more than this. The drop is from the softmax model's accuracy, in [0, 1]; 1 never"
        " stops. Default 0.05.",
        SHARE,
    )
    lr: float = flag(0.01, "Peak learning rate. Default 0.01: a tenth of that from scratch.", ABOVE_0)
    freeze_norms: bool = key(
        True,
        "Batch norms keep their statistics; their scale and shift train on. Default: on, so that little is forgotten.",
        stated=True,
    )
    head_start: AutoStart = key(
        "auto",
        HEAD_START_HELP + " with the weights of softmax, if it has as many classes. Default auto: none for these, probe"
        " for another number of classes.",
        stated=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_head("cos", self.kappa)
        _check_head_start(self)


def kappa_policy(kappa: str) -> float | str:
    """Return `kappa` as heads take it: a number if it can be read as one, else the name of a policy."""
    try:
        return float(kappa)
    except ValueError:
        return kappa


def _ascend(numbers: Sequence[int]) -> bool:
    return all(before < after for before, after in pairwise(numbers))


def _check_head_start(args: FinetuneArguments | CosifyArguments) -> None:
    if args.head_start not in ("none", "auto") and args.class_parallel:  # nobody holds the whole weight on the device
        raise InputError(f"head_start is {args.head_start!r} with class_parallel, expected one of them; drop the other")


def check_head(head: Any, kappa: str, has_margin: bool = False, class_parallel: bool = False) -> None:
    """Raise a ValueError if `kappa` is neither a policy nor a number above 0, or the head has no use for it."""
    if head == "linear" and kappa != "ls":
        raise InputError(f"kappa is {kappa!r} with head linear, which has no kappa; use head cos or drop kappa")
    if head == "linear" and has_margin:
        raise InputError("a margin is set with head linear, which has no cosine; use head cos or drop the margin")
    if head == "linear" and class_parallel:
        raise InputError("class_parallel is on with head linear, expected a cosine head; use head cos or drop it")
    if head == "cos":
        from cosify.heads import resolve_policy  # imports torch, which --help does not wait for

        resolve_policy(kappa_policy(kappa))
