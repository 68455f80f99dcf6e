"""Banks: what a model made of a set of images, on disk, so that every analysis runs without the model."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cosify.data import Preprocessing
from cosify.errors import InputError
from cosify.evaluation.json_records import from_json
from cosify.evaluation.rows import row_blocks
from cosify.functional import cosine, ls_kappa
from cosify.heads import CosineLinear, EvalKappa

FORMAT = 1
TOP = 5  # cosines kept of each sample
DTYPES = {
    "embedding": np.float32,
    "top_cosine": np.float32,
    "top_class": np.int64,
    "labels": np.int64,
    "predictions": np.int64,
    "max_logit": np.float32,
    "max_probability": np.float32,
    "log_odds": np.float32,
    "log_sum_exp": np.float32,
}
OWN = ("bank.json", "classifier.safetensors", *(f"{name}.npy" for name in DTYPES))  # files of a bank
REPLACED_MEANWHILE = 10  # times that a bank may be while it is opened


@dataclass(frozen=True)
class BankKey:
    """What a bank depends on; a bank is used again only where all of it is the same.

    Attributes:
        model: digest of the weights and name of the architecture.
        data: fingerprint of the rows.
        transform: how images reach the model.
    """

    model: str
    data: str
    transform: str


class StaleBankError(InputError):
    """A bank is there, but of another model, other data or another transform, or it is damaged."""


class _ReplacedError(Exception):
    """Another process has replaced a bank while it was opened."""


@dataclass(frozen=True)
class BankInfo:
    """What is known of a bank beside its arrays.

    Attributes:
        key: what it depends on.
        num_samples: N.
        dim: d.
        num_classes: C, of the model.
        label_names: of the data.
        kappa: of a cosine head in evaluation; None for a stock linear one.
        kappa_policy: of a cosine head, such as `"ls"` or `60.0`; None for a stock one.
        eval_kappa: of a cosine head, `"running"`, `"sample"` or a number.
        output_is_classifier: whether the model's logits are those of its classifier: not where it averages two heads.
        image_shape: channels, height and width that images reach the model with.
        preprocessing: how they get there.
    """

    key: BankKey
    num_samples: int
    dim: int
    num_classes: int
    label_names: tuple[str, ...]
    kappa: float | None
    kappa_policy: float | str | None
    eval_kappa: EvalKappa | None = None
    output_is_classifier: bool = True
    image_shape: tuple[int, ...] | None = None
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True, eq=False)
class FeatureBank:
    """Features of a model over a set; arrays are memory-mapped, read-only.

    Attributes:
        info: key, counts, head.
        weight: [C, d], of the classifier.
        bias: [C]; None for a cosine head.
        embedding: [N, d], float32: what the classifier was given, not normalised.
        top_cosine: [N, k], cosines to the nearest classes, largest first, k = min(5, C).
        top_class: [N, k], which classes.
        labels: [N], as the data say.
        predictions: [N], class of the model's largest logit.
        max_logit: [N], the model's largest logit.
        max_probability: [N], of its softmax; rounds to 1 where the model is sure.
        log_odds: [N], log(p / (1 - p)) of that probability p, which tells sure predictions apart.
        log_sum_exp: [N], of its logits.
    """

    info: BankInfo
    weight: Tensor
    bias: Tensor | None
    embedding: NDArray[np.float32]
    top_cosine: NDArray[np.float32]
    top_class: NDArray[np.int64]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    max_logit: NDArray[np.float32]
    max_probability: NDArray[np.float32]
    log_odds: NDArray[np.float32]
    log_sum_exp: NDArray[np.float32]

    def __len__(self) -> int:
        return self.info.num_samples

    @classmethod
    def of_rows(
        cls, info: BankInfo, weight: Tensor, bias: Tensor | None, embedding: Tensor, logits: Tensor | None = None
    ) -> "FeatureBank":
        """Return a bank in memory of some features without labels.

        Args:
            info: of the model; the number of samples is that of `embedding`.
            weight: [C, d].
            bias: [C]; None for a cosine head.
            embedding: [N, d].
            logits: [N, C], of the model; None to compute them from the embedding.
        """
        embedding = embedding.detach().float().cpu()
        if logits is None:
            check_output(info)
            logits = classifier_logits(info, embedding, weight, bias)
        unknown = torch.full((len(embedding),), -1)
        arrays = measured(embedding, logits.detach().float().cpu(), unknown, weight)
        return cls(replace(info, num_samples=len(embedding)), weight, bias, **arrays)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the prediction is the label, [N]."""
        return np.asarray(self.predictions == self.labels)

    @property
    def norm(self) -> NDArray[np.float64]:
        """Euclidean norms of the embeddings, [N]."""
        return np.concatenate([np.empty(0), *(rows.double().norm(dim=1).numpy() for rows in self.blocks())])

    def blocks(self) -> Iterator[Tensor]:
        """Return the embeddings, some thousand rows at a time, float32."""
        return (rows for _, rows in row_blocks(self.embedding))

    def logits(self) -> Iterator[Tensor]:
        """Yield the classifier's logits, computed anew from the embeddings, [<= 4096, C] at a time, float32.

        Raises:
            ValueError: if the model's output is not that of its classifier.
        """
        check_output(self.info)
        for rows in self.blocks():
            yield classifier_logits(self.info, rows, self.weight, self.bias)

    def ls_kappa(self) -> Tensor:
        """Return Eq. (11) for every sample, [N], float32, also of a stock classifier's weights."""
        return torch.cat([ls_kappa(rows, self.weight) for rows in self.blocks()])

    @classmethod
    def open(cls, folder: Path, key: BankKey | None = None) -> "FeatureBank":
        """Open a bank.

        Args:
            folder: of the bank.
            key: what it must depend on; None for whatever it does.

        Raises:
            FileNotFoundError: if there is none.
            StaleBankError: if it is of something else, or damaged; the message says what differs.
        """
        for _ in range(REPLACED_MEANWHILE):
            before = _description(folder)
            try:
                return cls._open(folder, key, before)
            except StaleBankError:
                if _description(folder) == before:
                    raise
            except _ReplacedError:
                pass
        raise StaleBankError(f"the bank {folder} is replaced again and again while it is opened")

    @classmethod
    def _open(cls, folder: Path, key: BankKey | None, description: bytes | None) -> "FeatureBank":
        if description is None:
            raise FileNotFoundError(f"{folder} holds no bank.json, expected a folder that cosify.evaluation wrote")
        try:
            saved = json.loads(description)
            saved.pop("made", None)
            if saved.pop("format") != FORMAT:
                raise InputError("it is of another version of cosify")
            info = from_json(BankInfo, saved)
            if key is not None and info.key != key:
                other = [name for name in BankKey.__match_args__ if getattr(info.key, name) != getattr(key, name)]
                raise StaleBankError(f"the bank {folder} is of another {' and '.join(other)}")
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in DTYPES}
            classifier = load_file(folder / "classifier.safetensors")
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            if isinstance(error, StaleBankError):
                raise
            raise StaleBankError(f"the bank {folder} cannot be read ({type(error).__name__}: {error})") from error
        found = {name: array.shape for name, array in arrays.items()}
        if found != shapes(info):
            raise StaleBankError(f"the bank {folder} has arrays of shapes {found}, expected {shapes(info)}")
        if _description(folder) != description:  # the arrays may be of another bank than it
            raise _ReplacedError
        return cls(info, classifier["weight"], classifier.get("bias"), **arrays)


def _description(folder: Path) -> bytes | None:
    """Return what the bank there says of itself, which no other one says; None if there is none."""
    try:
        return (folder / "bank.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_output(info: BankInfo) -> None:
    """Raise a ValueError if logits cannot be had from embeddings."""
    if not info.output_is_classifier:
        raise InputError(
            "the model's logits are not those of its classifier, as where two heads are averaged, expected a model with"
            " one: from embeddings alone its labels do not follow; give images, or use scores of the bank"
        )


def classifier_logits(info: BankInfo, embedding: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the logits [N, C] that the classifier of a model in evaluation gives to embeddings [N, d]."""
    if info.kappa is None:
        return F.linear(embedding, weight, bias)
    if info.eval_kappa != "sample" or info.kappa_policy == "trainable":
        return info.kappa * cosine(embedding, weight)
    assert info.kappa_policy is not None
    head = CosineLinear(*reversed(weight.shape), kappa=info.kappa_policy, eval_kappa="sample", start_kappa=info.kappa)
    with torch.no_grad():
        head.weight.copy_(weight)
        logits: Tensor = head.eval()(embedding)
    return logits


def measured(embedding: Tensor, logits: Tensor, labels: Tensor, weight: Tensor) -> dict[str, NDArray[Any]]:
    """Return the arrays of a bank for some samples."""
    top = cosine(embedding, weight).topk(min(TOP, len(weight)), dim=1)
    log_sum_exp, largest = logits.logsumexp(dim=1), logits.max(dim=1)
    others = logits.scatter(1, largest.indices.unsqueeze(1), -torch.inf).logsumexp(dim=1)
    values = {
        "embedding": embedding,
        "top_cosine": top.values,
        "top_class": top.indices,
        "labels": labels,
        "predictions": largest.indices,
        "max_logit": largest.values,
        "max_probability": (largest.values - log_sum_exp).exp(),
        "log_odds": largest.values - others,
        "log_sum_exp": log_sum_exp,
    }
    return {name: value.cpu().numpy().astype(DTYPES[name], copy=False) for name, value in values.items()}


def shapes(info: BankInfo) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a bank."""
    width = {"embedding": info.dim, "top_cosine": min(TOP, info.num_classes), "top_class": min(TOP, info.num_classes)}
    return {name: (info.num_samples, width[name]) if name in width else (info.num_samples,) for name in DTYPES}
