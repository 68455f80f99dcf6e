"""What a recipe file can set beyond the flags: rarely changed, many, and the same for every script."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

from cosify.data import Pipeline, check_transform
from cosify.errors import InputError

Schedule = Literal["cosine", "step", "multistep", "poly", "constant"]
Balance = Literal["none", "loss", "sampling"]
Export = Literal["last", "best"]


def setting(default: Any, help_text: str) -> Any:
    """Return a dataclass field with its help text."""
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata={"help": help_text})
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Recipe:
    """Settings that have no flag of their own: keys of a YAML file, or `--set key=value`."""

    # optimisation
    momentum: float = setting(0.9, "Momentum of the optimiser, no unit. Default 0.9: the usual one.")
    schedule: Schedule = setting("cosine", "Course of the learning rate after the warm-up. Default cosine, to min_lr.")
    warmup_epochs: float | None = setting(
        None, "Epochs of linear warm-up. Default: 1, or half of a run that is shorter than 2; large kappas need one."
    )
    min_lr: float = setting(0.0, "Learning rate at the end of cosine and poly. Default 0.")
    decay_epochs: float = setting(30.0, "Epochs between the decays of step. Default 30, as for ImageNet.")
    decay_milestones: list[int] = setting([], "Epochs of the decays of multistep, such as [160, 180]. Default: none.")
    decay_rate: float = setting(0.1, "Factor of each decay (step, multistep), or the power of poly. Default 0.1.")
    clip_grad_norm: float | None = setting(None, "Largest norm of the gradient. Default: not limited.")
    accumulate: int = setting(1, "Batches whose gradients make one optimiser step. Default 1.")
    ema_decay: float | None = setting(None, "Average of the weights, per step, such as 0.9999; evaluated and exported.")
    # loss
    label_smoothing: float = setting(0.0, "Share of the target given to all classes, in [0, 1). Default 0.")
    cosine_margin: float = setting(0.0, "CosFace margin on the target cosine, such as 0.35. Default 0.")
    angular_margin: float = setting(0.0, "ArcFace margin on the target angle, radians, such as 0.5. Default 0.")
    balance: Balance = setting("none", "Rare classes weigh more in the loss, or are drawn as often as others.")
    # augmentation
    transform: dict[str, Any] = setting({}, "Arguments of timm.data.create_transform, such as {auto_augment: rand-m9}.")
    random_erasing: float = setting(0.0, "Probability that a rectangle of an image is erased. Default 0.")
    mixup: float = setting(0.0, "Alpha of mixup, from 0 on. Default 0: off.")
    cutmix: float = setting(0.0, "Alpha of cutmix, from 0 on. Default 0: off.")
    mix_off_epochs: int = setting(0, "Last epochs without mixup and cutmix. Default 0.")
    # data
    pipeline: Pipeline = setting("auto", "device, workers, or by size of images and set. Default auto.")
    num_workers: int | None = setting(None, "Worker processes a rank. Default: its share of the cores, at most 8.")
    streaming: bool = setting(False, "Read rows as they are needed instead of storing the set. Default: off.")
    num_train: int | None = setting(None, "Images of a streamed training split that does not say. Default: it does.")
    # execution
    compile: bool = setting(False, "torch.compile the network. Default: off; it takes minutes at the start.")
    grad_checkpointing: bool = setting(
        False, "Recompute activations in the backward pass to save memory. Default: off."
    )
    wait_minutes: float = setting(
        30.0, "Minutes that a process waits for another before it gives up; more where the main one prepares long."
    )
    sync_batch_norm: bool = setting(False, "Statistics of batch norm over all processes, CUDA only. Default: off.")
    # evaluation and checkpoints
    eval_every_epochs: int = setting(1, "Epochs between evaluations; the last one always has one. Default 1.")
    eval_every_steps: int | None = setting(None, "Also evaluate every so many steps. Default: not.")
    save_every_steps: int | None = setting(None, "Also save a checkpoint every so many steps. Default: after epochs.")
    early_stop_evaluations: int | None = setting(None, "Stop after as many without a better one. Default: not.")
    export: Export = setting("last", "Weights to export: of the last step, or of the best evaluation. Default last.")

    def __post_init__(self) -> None:
        for entry in fields(self):  # argparse does so for flags; a YAML file does not pass through it
            if get_origin(entry.type) is Literal:
                self._check(
                    entry.name, getattr(self, entry.name) in get_args(entry.type), f"one of {get_args(entry.type)}"
                )
        for name in ("momentum", "min_lr", "cosine_margin", "angular_margin", "mixup", "cutmix", "mix_off_epochs"):
            self._check(name, getattr(self, name) >= 0, "a number from 0 on")
        for name in ("decay_epochs", "decay_rate", "wait_minutes"):
            self._check(name, getattr(self, name) > 0, "a number above 0")
        for name in ("accumulate", "eval_every_epochs"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("eval_every_steps", "save_every_steps", "early_stop_evaluations", "num_train"):
            value = getattr(self, name)
            self._check(name, value is None or value >= 1, "at least 1, or nothing")
        self._check("num_workers", self.num_workers is None or self.num_workers >= 0, "0 or more, or nothing")
        self._check("clip_grad_norm", self.clip_grad_norm is None or self.clip_grad_norm > 0, "a number above 0")
        self._check("ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, "a number between 0 and 1")
        self._check("label_smoothing", 0 <= self.label_smoothing < 1, "a share in [0, 1)")
        self._check("random_erasing", 0 <= self.random_erasing <= 1, "a probability")
        if self.schedule == "multistep":
            self._check("decay_milestones", len(self.decay_milestones) > 0, "epochs, such as [160, 180]")
        if (self.mixup > 0 or self.cutmix > 0) and self.has_margin:
            raise InputError(
                f"mixup is {self.mixup} and cutmix {self.cutmix} with a margin, which needs one label for each image;"
                " drop the margin, or mixup and cutmix"
            )
        if self.compile and self.has_margin:
            raise InputError(
                "compile is on with a margin, whose loss goes around the compiled forward; drop one of them"
            )
        check_transform(self.transform)

    def _check(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            raise InputError(f"{name} is {getattr(self, name)!r}, expected {expected}; change {name} in the recipe")

    @property
    def has_margin(self) -> bool:
        """Whether the loss is the embedding-level one."""
        return self.cosine_margin > 0 or self.angular_margin > 0


def recipe_keys() -> Mapping[str, str]:
    """Return the help text of each key that has no flag."""
    return {entry.name: entry.metadata["help"] for entry in fields(Recipe)}
