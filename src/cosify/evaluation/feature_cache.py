"""The feature cache: what a model made of a set of images, on disk, so that every analysis runs without the model."""

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
DESCRIPTION = "bank.json"  # earlier versions called a cache a bank, and theirs are still opened
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
CLASSIFIER = "classifier.safetensors"
OWN = (DESCRIPTION, CLASSIFIER, *(f"{name}.npy" for name in DTYPES))  # files of a cache
MOST_ATTEMPTS = 10  # to open a cache that other processes replace meanwhile


@dataclass(frozen=True)
class CacheKey:
    """What a feature cache depends on; it is used again only where all of this is the same.

    Attributes:
        model: digest of the weights, and name of the architecture.
        data: fingerprint of the images and labels.
        transform: how images are prepared for the model.
    """

    model: str
    data: str
    transform: str


class StaleCacheError(InputError):
    """The feature cache in a folder is of another model, other data or another transform, or it is damaged."""


class _ReplacedError(Exception):
    """Another process replaced the cache while it was being opened."""


@dataclass(frozen=True)
class CacheInfo:
    """What a feature cache says of its model and data, beside the arrays.

    Attributes:
        key: what the cache depends on.
        num_samples: N.
        dim: d.
        num_classes: C, of the model.
        label_names: class names of the data.
        kappa: of a cosine head in evaluation; None for a stock linear head.
        kappa_policy: of a cosine head, such as `"ls"` or `60.0`; None for a stock linear head.
        eval_kappa: of a cosine head: `"running"`, `"sample"` or a number.
        output_is_classifier: whether the model's logits are its classifier's; not so where it averages two heads.
        image_shape: channels, height and width of the images that the model is given.
        preprocessing: how images get that shape.
    """

    key: CacheKey
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
class FeatureCache:
    """Features of a model over a set of images; arrays read from disk are memory-mapped and read-only.

    Attributes:
        info: what the cache says of its model and data.
        weight: [C, d], of the classifier.
        bias: [C]; None for a cosine head, or a classifier without one.
        embedding: [N, d], float32: what the classifier was given, not normalised.
        top_cosine: [N, k], cosines to the nearest classes, largest first, k = min(5, C).
        top_class: [N, k], the classes of these cosines.
        labels: [N], class indices of the data; -1 for a sample without a label.
        predictions: [N], class of the model's largest logit.
        max_logit: [N], the model's largest logit.
        max_probability: [N], the largest softmax probability; rounds to 1 where the model is sure.
        log_odds: [N], log(p / (1 - p)) of that probability p, which tells sure predictions apart.
        log_sum_exp: [N], log of the sum of the exponentials of the model's logits.
    """

    info: CacheInfo
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
        cls, info: CacheInfo, weight: Tensor, bias: Tensor | None, embedding: Tensor, logits: Tensor | None = None
    ) -> "FeatureCache":
        """Return a cache in memory, of features without labels.

        Args:
            info: of the model; `num_samples` is set to the length of `embedding`.
            weight: [C, d], of the classifier.
            bias: [C]; None for a cosine head.
            embedding: [N, d].
            logits: [N, C], of the model; None to compute them from the embedding.

        Raises:
            ValueError: if logits do not follow from embeddings, as where a model averages two heads.
        """
        embedding = embedding.detach().float().cpu()
        if logits is None:
            check_output(info)
            logits = classifier_logits(info, embedding, weight, bias)
        unknown = torch.full((len(embedding),), -1)
        arrays = cache_arrays(embedding, logits.detach().float().cpu(), unknown, weight)
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
        """Return the embeddings, [<= 4096, d] at a time, float32."""
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
        """Return kappa*, Eq. (11), of every sample, [N], float32; a stock classifier's weights have one, too."""
        return torch.cat([ls_kappa(rows, self.weight) for rows in self.blocks()])

    @classmethod
    def open(cls, folder: Path | str, key: CacheKey | None = None) -> "FeatureCache":
        """Open a cache that `cache_features` wrote.

        Args:
            folder: of the cache.
            key: what it must depend on; None to open it whatever it depends on.

        Raises:
            FileNotFoundError: if there is none.
            StaleCacheError: if it depends on something else, or is damaged; the message says which.
        """
        folder = Path(folder)
        for _ in range(MOST_ATTEMPTS):
            before = _description(folder)
            try:
                return cls._open(folder, key, before)
            except StaleCacheError:
                if _description(folder) == before:
                    raise
            except _ReplacedError:
                pass
        raise StaleCacheError(f"the feature cache {folder} is replaced again and again while it is opened")

    @classmethod
    def _open(cls, folder: Path, key: CacheKey | None, description: bytes | None) -> "FeatureCache":
        if description is None:
            raise FileNotFoundError(f"{folder} holds no {DESCRIPTION}, expected a folder that cosify.evaluation wrote")
        try:
            saved = json.loads(description)
            saved.pop("made", None)
            if saved.pop("format") != FORMAT:
                raise InputError("it is of another version of cosify")
            info = from_json(CacheInfo, saved)
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in DTYPES}
            classifier = load_file(folder / CLASSIFIER)
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            what = f"{type(error).__name__}: {error}"
            raise StaleCacheError(f"the feature cache {folder} cannot be read ({what})") from error
        if key is not None and info.key != key:
            other = [name for name in CacheKey.__match_args__ if getattr(info.key, name) != getattr(key, name)]
            raise StaleCacheError(f"the feature cache {folder} is of another {' and '.join(other)}")
        found = {name: array.shape for name, array in arrays.items()}
        if found != shapes(info):
            raise StaleCacheError(f"the feature cache {folder} has arrays of shapes {found}, expected {shapes(info)}")
        if _description(folder) != description:  # the arrays may be of the cache that replaced it
            raise _ReplacedError
        return cls(info, classifier["weight"], classifier.get("bias"), **arrays)


def _description(folder: Path) -> bytes | None:
    """Return the description of the cache in a folder, which no two caches share; None if there is none."""
    try:
        return (folder / DESCRIPTION).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_output(info: CacheInfo) -> None:
    """Raise a ValueError if the model's logits do not follow from its embeddings."""
    if not info.output_is_classifier:
        raise InputError(
            "the model's logits are not those of its classifier, as where two heads are averaged, so that they do not"
            " follow from embeddings, expected a model with one head; give images, or use scores of the cache"
        )


def classifier_logits(info: CacheInfo, embedding: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
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


def cache_arrays(embedding: Tensor, logits: Tensor, labels: Tensor, weight: Tensor) -> dict[str, NDArray[Any]]:
    """Return the arrays of a cache for some of its samples, by name."""
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


def shapes(info: CacheInfo) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a cache, by name."""
    width = {"embedding": info.dim, "top_cosine": min(TOP, info.num_classes), "top_class": min(TOP, info.num_classes)}
    return {name: (info.num_samples, width[name]) if name in width else (info.num_samples,) for name in DTYPES}
