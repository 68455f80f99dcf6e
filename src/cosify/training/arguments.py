"""What a training run can be told, from the command line or a YAML file."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from cosify.heads import resolve_policy

Head = Literal["cos", "linear"]
Precision = Literal["no", "bf16"]


@dataclass(frozen=True)
class TrainArguments:
    """Settings of one training run; each field is a flag and a YAML key of the same name."""

    data: str = field(
        default="digits",
        metadata={
            "help": "digits, synthetic, a folder with train.parquet and test.parquet, a folder with train/CLASS/*.png"
            " and test/CLASS/*.png, or a data set id on the Hugging Face hub. Default: the 1,797 digits of"
            " scikit-learn, which need no download."
        },
    )
    image_column: str | None = field(
        default=None, metadata={"help": "Name of the column of images. Default: the only one of that type."}
    )
    label_column: str | None = field(
        default=None, metadata={"help": "Name of the column of class indices. Default: the only ClassLabel column."}
    )
    image_size: int | None = field(
        default=None,
        metadata={
            "help": "Side of the images in pixels: short side resized, centre cropped. Default: as stored, or the"
            " model's own size where images differ; 32 for digits with the default model, whose stem divides it by 4."
        },
    )
    limit_train: int | None = field(
        default=None, metadata={"help": "Train on this many images, the same ones for every seed. Default: all."}
    )
    augment: Literal["auto", "crop-flip", "crop", "none"] = field(
        default="auto",
        metadata={
            "help": "Random shift by up to an eighth of the side, and mirroring. Default auto: both; no mirroring for"
            " the built-in sets, because digits have a left and a right. Use crop for text of your own."
        },
    )
    model: str | None = field(
        default=None,
        metadata={
            "help": "Any timm model name. Default: a narrow resnet10t for the built-in sets (a stock architecture that"
            " opens anywhere and trains in seconds), resnet18_cifar for other data."
        },
    )
    model_kwargs: list[str] = field(
        default_factory=list,
        metadata={"help": "Arguments of the model as key=value, for example width=0.25. Default: none."},
    )
    pretrained: bool = field(
        default=False,
        metadata={"help": "Start from timm's pretrained weights. Default: from scratch, as in the paper."},
    )
    head: Head = field(
        default="cos",
        metadata={"help": "cos: cosine-softmax. linear: the model's own softmax head, the baseline. Default: cos."},
    )
    kappa: str = field(
        default="ls",
        metadata={
            "help": "ls, ml, rule, trainable, adacos, adacos-dynamic, or a fixed number above 0. kappa multiplies the"
            " cosine (1 / temperature, no unit). Default: ls, the estimate of the paper's Eq. 11."
        },
    )
    epochs: int = field(
        default=30,
        metadata={"help": "Passes over the training set. Default 30: enough for digits; the paper uses 200."},
    )
    batch_size: int = field(
        default=128,
        metadata={
            "help": "Images a step on each process. Default 128: the usual one for CIFAR at a learning rate of 0.1."
        },
    )
    optimizer: str = field(
        default="sgd",
        metadata={"help": "Any optimiser of timm. Default sgd: with Nesterov momentum, as is usual for ResNets."},
    )
    lr: float = field(
        default=0.1,
        metadata={
            "help": "Peak learning rate, for one process' batch of 128. Default 0.1: fits SGD; use 1e-3 for adamw."
        },
    )
    weight_decay: float = field(
        default=5e-4,
        metadata={
            "help": "Weight decay; none on vectors, so none on a trainable kappa. Default 5e-4: usual for CIFAR."
        },
    )
    momentum: float = field(
        default=0.9, metadata={"help": "Momentum of the optimiser, no unit. Default 0.9: the usual one."}
    )
    warmup_epochs: float = field(
        default=1.0,
        metadata={
            "help": "Epochs of linear warm-up before the cosine decay. Default 1: a large kappa diverges without."
        },
    )
    mixed_precision: Precision = field(
        default="no",
        metadata={
            "help": "no (float32) or bf16. Default no: exact; on a CPU without bf16 units bf16 is ten times slower."
        },
    )
    seed: int = field(default=0, metadata={"help": "Of weights, order and augmentation. Default 0."})
    output: str | None = field(
        default=None, metadata={"help": "Run folder. Default: runs/DATE-DATA-MODEL-KAPPA, new for every run."}
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace an earlier run in the run folder. Default: refuse, so that none is lost."},
    )
    smoke: bool = field(
        default=False, metadata={"help": "Ten epochs on synthetic images, to see that everything works. Default: off."}
    )

    def __post_init__(self) -> None:
        for entry in fields(self):  # argparse does so for flags; a YAML file does not pass through it
            if get_origin(entry.type) is Literal:
                self._check(
                    entry.name, getattr(self, entry.name) in get_args(entry.type), f"one of {get_args(entry.type)}"
                )
        for name in ("epochs", "batch_size"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("image_size", "limit_train"):
            value = getattr(self, name)
            self._check(name, value is None or value >= 1, "at least 1, or nothing")
        self._check("lr", self.lr > 0, "a number above 0")
        for name in ("weight_decay", "momentum", "warmup_epochs"):
            self._check(name, getattr(self, name) >= 0, "a number from 0 on")
        self._check("warmup_epochs", self.warmup_epochs < self.epochs, f"less than epochs ({self.epochs})")
        self._check("seed", self.seed >= 0, "a whole number from 0 on")
        if self.smoke and self.data not in ("digits", "synthetic"):
            raise ValueError(f"smoke trains on synthetic images, but data is {self.data!r}; drop one of them")
        if self.head == "linear" and self.kappa != "ls":
            raise ValueError(
                f"kappa is {self.kappa!r} with head linear, which has no kappa; use head cos or drop kappa"
            )
        resolve_policy(self.kappa_policy)

    def _check(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            raise ValueError(
                f"{name} is {getattr(self, name)!r}, expected {expected}; change --{name.replace('_', '-')}"
            )

    @property
    def kappa_policy(self) -> float | str:
        """`kappa` as heads take it: a number where it reads as one, else the name of a policy."""
        try:
            return float(self.kappa)
        except ValueError:
            return self.kappa


def parse_arguments(arguments: Sequence[str] | None = None, description: str | None = None) -> TrainArguments:
    """Read flags, and a YAML file that `--config` names; flags win over the file.

    Args:
        arguments: what follows the program's name; None for those of this process.
        description: shown by `--help`.

    Returns:
        The checked settings.  A wrong flag, key or value ends the program with a message, as argparse does.
    """
    import argparse

    from transformers import HfArgumentParser

    parser = HfArgumentParser(
        TrainArguments,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="YAML file of settings, keys as the flags. Default: none.")
    config, _ = parser.parse_known_args(arguments)
    try:
        parser.set_defaults(**({} if config.config is None else read_yaml(Path(config.config))))
        parsed, _, unknown = parser.parse_args_into_dataclasses(
            arguments, return_remaining_strings=True, look_for_args_file=False
        )
        if unknown:
            raise ValueError(
                f"unknown flags {unknown}, expected those listed by --help; {_suggest(unknown[0].strip('-'))}"
            )
    except (OSError, TypeError, ValueError) as error:
        parser.error(str(error))
    settings: TrainArguments = parsed
    return settings


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the settings in a YAML file.

    Raises:
        ValueError: if it is no mapping, or has keys that are not fields of `TrainArguments`, or values of another type.
        OSError: if it cannot be read.
    """
    import yaml  # type: ignore[import-untyped]  # it ships no types

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, expected key: value lines such as 'epochs: 30'")
    known = {entry.name: entry for entry in fields(TrainArguments)}
    for key, value in content.items():
        if key not in known:
            raise ValueError(
                f"unknown key {key!r} in {path}, expected fields of the command line; {_suggest(str(key))}"
            )
        content[key] = _as_type(key, value, known[key].type, path)
    return content


def _as_type(key: str, value: Any, expected: Any, path: Path) -> Any:
    """Return `value` if it suits the field, numbers as the field's kind; YAML reads 5e-4 as text."""
    if key == "model_kwargs":
        if isinstance(value, dict):
            return [f"{name}={setting!r}" for name, setting in value.items()]
        fine = isinstance(value, list)
    elif expected is bool:
        fine = isinstance(value, bool)
    elif expected in (int, int | None):
        fine = isinstance(value, int) and not isinstance(value, bool)
    elif expected is float:
        try:
            value, fine = float(value), not isinstance(value, bool)
        except (TypeError, ValueError):
            fine = False
    else:
        # `no` and numbers are no text in YAML, but what users write for mixed_precision and kappa.
        value = "no" if value is False and key == "mixed_precision" else value
        value, fine = str(value), isinstance(value, (str, int, float)) and not isinstance(value, bool)
    if not fine:
        raise ValueError(
            f"{key} in {path} is {value!r}, expected {getattr(expected, '__name__', expected)}; see --help"
        )
    return value


def _suggest(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name.split("=")[0].replace("-", "_"), [f.name for f in fields(TrainArguments)], 1)
    return f"did you mean {close[0]}?" if close else "check the spelling"
