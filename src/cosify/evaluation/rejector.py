"""A classifier that declines to answer where it is unsure: a score and its threshold, saved beside the model."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from cosify.data import Normalization, eval_transform
from cosify.errors import InputError, NotFoundError
from cosify.evaluation.assessment import refuse_other_classes
from cosify.evaluation.decision import Decision, DecisionBatch, Decisions
from cosify.evaluation.detection_metrics import threshold_at
from cosify.evaluation.feature_cache import CacheInfo, FeatureCache
from cosify.evaluation.image_kinds import given_image, is_array, is_pixels
from cosify.evaluation.json_records import from_json
from cosify.evaluation.mahalanobis import TiedGaussian
from cosify.evaluation.scores import SCORES, Mahalanobis, NormMahalanobis
from cosify.files import alone_in, remove_left, write_whole, written_aside
from cosify.functional.similarity import unit_rows
from cosify.hub import load
from cosify.hub.contents import REJECTOR, REJECTOR_TENSORS
from cosify.hub.resolve import folder_of
from cosify.models import in_evaluation, linear_classifier
from cosify.models.binding import digest_of
from cosify.models.network_identity import model_digest, same_network

if TYPE_CHECKING:
    from PIL.Image import Image

    OneImage = str | Path | Image | NDArray[Any] | Tensor

FORMAT = 1
TENSORS = re.compile(r"rejector(-[0-9a-f]{16})?\.safetensors")  # each fit has a file of its own
SAVED = tuple(name for name in SCORES if name != "knn")  # "knn" would need every training feature
ROUNDING = 1e-4  # of the scores' spread; the sums of another batch order change some 1e-5 of it
BATCH_SIZE = 64  # images of a list that are in memory at once


@dataclass(frozen=True, eq=False)
class Rejector:
    """Accept or reject each prediction of a model.

    Attributes:
        score: name of the score, one of `SAVED`.
        threshold: least score that is accepted.
        share: of the correctly classified held-out samples that the threshold accepts, in (0, 1].
        num_held_out: number of correctly classified held-out samples.
        info: of the feature cache that set the threshold.
        weight: [C, d], of the model's classifier.
        bias: [C]; None for a cosine head.
        detector: function from a `FeatureCache` to the score of its samples, [N].
        folder: of the model; None before `load`.
    """

    score: str
    threshold: float
    share: float
    num_held_out: int
    info: CacheInfo
    weight: Tensor
    bias: Tensor | None
    detector: Any
    folder: Path | None = field(default=None)

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise InputError(f"threshold is {self.threshold}, expected a finite number")
        if not 0 < self.share <= 1:
            raise InputError(f"share is {self.share}, expected above 0 and at most 1")
        if self.num_held_out < 1:
            raise InputError(f"num_held_out is {self.num_held_out}, expected at least 1")

    @classmethod
    def fit(cls, score: str, train: FeatureCache | None, held_out: FeatureCache, *, share: float = 0.95) -> "Rejector":
        """Choose the threshold that accepts a share of the correctly classified samples.

        Args:
            score: such as `"z_max"`, one of `SAVED`.
            train: cache of the training split; None for scores that need no fit.
            held_out: cache of samples that were not trained on; those classified correctly set the threshold.
            share: of these to accept, the true positive rate, in (0, 1].

        Raises:
            ValueError: for an unknown score, a share out of range, caches of two models, held-out samples of other
                classes than the model's, or no correct sample.
        """
        if score not in SAVED:
            raise InputError(f"score is {score!r}, expected one of {', '.join(SAVED)}")
        if SCORES[score].needs_train and train is None:
            raise InputError(f"score {score!r} is fitted on training features, expected a cache of them; pass train")
        if train is not None and train.info.key.model != held_out.info.key.model:
            raise InputError("train and held_out are caches of different models, expected one; make both with the same")
        refuse_other_classes(held_out.info.num_classes, len(held_out.info.label_names))
        detector = SCORES[score].fit(train)
        scores = np.asarray(detector(held_out), dtype=np.float64)
        accepted = scores[held_out.correct]
        least = threshold_at(accepted, share)
        # Below that score, not at it: the image that it is of may lose its last digits in another batch.
        gap = (least - scores[scores < least]).min(initial=np.inf)
        room = max(ROUNDING * abs(np.median(accepted) - least), ROUNDING / 100 * abs(least))
        threshold = float(least - min(gap / 2, room))
        return cls(score, threshold, share, len(accepted), held_out.info, held_out.weight, held_out.bias, detector)

    def save(self, folder: Path | str) -> Path:
        """Write rejector.json, and the file of tensors that it names, into the folder of the model.

        An earlier rejector stays in force until the new one is complete.

        Args:
            folder: where the model's config.json and weights are.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.weight} if self.bias is None else {"weight": self.weight, "bias": self.bias}
        gaussian = _gaussian_of(self.detector)
        if gaussian is not None:
            tensors |= {"means": gaussian.means, "factor": gaussian.factor}
        tensors = {name: _halved(value.contiguous()) for name, value in tensors.items()}
        file = folder / f"rejector-{digest_of(tensors)[:16]}.safetensors"
        saved = {
            "format": FORMAT,
            "score": self.score,
            "threshold": self.threshold,
            "share": self.share,
            "num_held_out": self.num_held_out,
            "tensors": file.name,
            "info": asdict(self.info),
        }
        with alone_in(folder) as alone:
            if alone:
                remove_left(folder, REJECTOR, REJECTOR_TENSORS)
            with written_aside(file) as aside:
                save_file(tensors, aside)
            write_whole(folder / REJECTOR, json.dumps(saved, indent=2) + "\n")  # until here the old one is in force
            for other in folder.iterdir():
                if TENSORS.fullmatch(other.name) and other != file:
                    other.unlink()
        return folder

    @classmethod
    def load(cls, source: Path | str) -> "Rejector":
        """Open what `save` wrote.

        Args:
            source: a folder, a run, a published backbone, or `ORG/NAME` on the hub, as `cosify.load` takes it.

        Raises:
            FileNotFoundError: if there is no rejector.json.
            ValueError: if the files are damaged.
        """
        given = Path(source).expanduser()
        folder = next((each for each in (given, given / "export") if (each / REJECTOR).is_file()), None)
        folder = folder_of(source, REJECTOR, REJECTOR_TENSORS) if folder is None else folder
        if not (folder / REJECTOR).is_file():
            raise NotFoundError(
                f"{source} holds no {REJECTOR}, expected a model for which one was fitted; fit it with cosify evaluate"
                f" {source} DATA --rejector z_max"
            )
        try:
            saved = json.loads((folder / REJECTOR).read_text(encoding="utf-8"))
            if saved.pop("format") != FORMAT:
                raise InputError("it is of another version of cosify")
            info = from_json(CacheInfo, saved.pop("info"))
            saved["threshold"] = float(saved["threshold"])
            name = saved.pop("tensors", "rejector.safetensors")  # what earlier editions wrote
            if not (isinstance(name, str) and TENSORS.fullmatch(name)):
                raise InputError(f"tensors is {name!r}, expected the name of a file beside it")
            tensors = {name: _whole(value) for name, value in load_file(folder / name).items()}
            weight, bias = tensors["weight"], tensors.get("bias")
            if weight.shape != (info.num_classes, info.dim):
                raise InputError(f"weight has shape {list(weight.shape)}, expected [{info.num_classes}, {info.dim}]")
            broken = [key for key, value in tensors.items() if not bool(value.isfinite().all())]
            if broken:
                raise InputError(f"{', '.join(broken)} holds NaN or infinity, expected finite numbers")
            detector = _restored(saved["score"], tensors)
            return cls(**saved, info=info, weight=weight, bias=bias, detector=detector, folder=folder)
        except Exception as error:  # its type depends on what is wrong with the files
            raise InputError(
                f"the rejector in {folder} cannot be read ({type(error).__name__}: {error}), expected what"
                " cosify.Rejector.save writes; fit and save it again"
            ) from error

    @overload
    def __call__(self, samples: "str | Path | Image") -> Decision: ...  # type: ignore[overload-overlap]  # of str
    @overload
    def __call__(self, samples: "Sequence[OneImage] | Iterator[OneImage]") -> Decisions: ...
    @overload
    def __call__(self, samples: "Tensor | NDArray[Any]") -> Any: ...

    def __call__(self, samples: Any) -> Decision | Decisions | DecisionBatch:
        """Classify, and say which predictions to trust.

        Images are transformed as they were for the fit; the model in the folder is opened for them.  A list may be
        long: 64 images are in memory at once.

        Args:
            samples: an image: a path, an image of Pillow, or uint8 pixels, [H, W], or [H, W, 3] of numpy, or [3, H, W]
                of torch; a list or iterator of these; a batch [B, H, W, channels] or [B, channels, H, W]; or floats:
                embeddings [B, d] or [d], or images that are normalised already, [B, channels, H, W].

        Returns:
            A `Decision` for one image, `Decisions` for several, and a `DecisionBatch` of tensors for floats.

        Raises:
            FileNotFoundError: if there is no such file.
            TypeError: if something else came.
            ValueError: if an array has another shape, there is no image, one cannot be read, or the model in the folder
                is not the one of the fit.
        """
        if is_array(samples):
            if not is_pixels(samples):
                return self._of_floats(samples)
            if samples.ndim == 4:
                return self._of_images(iter(samples))
        if isinstance(samples, Sequence | Iterator) and not isinstance(samples, str | bytes):
            return self._of_images(iter(samples))
        model = self._model
        return self._decisions(model, model.pixels(given_image(samples)).unsqueeze(0))[0]

    def _of_floats(self, samples: Any) -> DecisionBatch:
        if isinstance(samples, np.ndarray):
            if samples.dtype.kind not in "fiu":
                raise TypeError(f"an array of {samples.dtype} came, expected numbers; give a list of images, or paths")
            samples = torch.from_numpy(samples)
        if samples.ndim > 2:
            return self._decide(*self._model(samples.float()))
        rows = samples.reshape(-1, samples.shape[-1]) if samples.ndim > 0 else samples.reshape(1, 1)
        if rows.shape[1] != self.info.dim:
            raise InputError(
                f"embeddings have shape {list(samples.shape)}, expected [B, {self.info.dim}], what the model's"
                " classifier gets"
            )
        return self._decide(rows)

    def _of_images(self, images: Iterator[Any]) -> Decisions:
        model, found = self._model, Decisions()
        while chunk := [
            model.pixels(given_image(image, f"image {place}"))
            for place, image in enumerate(islice(images, BATCH_SIZE), len(found))
        ]:
            found += self._decisions(model, torch.stack(chunk))
        if not found:
            raise InputError("the list of images is empty, expected at least one")
        return found

    def _decisions(self, model: "_Images", pixels: Tensor) -> list[Decision]:
        columns = (column.tolist() for column in self._decide(*model(model.normalize(pixels))))
        return [
            Decision(self._name(label), label, score, accept, self.threshold)
            for label, score, accept in zip(*columns, strict=True)
        ]

    def _name(self, label: int) -> str:
        """Return the name of a class; its index where the names are not those of the model's classes."""
        names = self.info.label_names
        return names[label] if len(names) == self.info.num_classes else str(label)

    def _decide(self, embedding: Tensor, logits: Tensor | None = None) -> DecisionBatch:
        cache = FeatureCache.of_rows(self.info, self.weight, self.bias, embedding, logits)
        score = torch.from_numpy(np.asarray(self.detector(cache)))
        return DecisionBatch(torch.from_numpy(cache.predictions), score, score >= self.threshold)

    def __repr__(self) -> str:
        place = "not saved yet" if self.folder is None else str(self.folder)
        return (
            f"Rejector({self.score} >= {self.threshold:.4g} accepts {self.share:.4g} of {self.num_held_out} right"
            f" answers; {self.info.num_classes} classes; {place})"
        )

    def check_model(self) -> None:
        """Raise a ValueError if the model in the folder is not the one of the fit."""
        getattr(self, "_model")  # noqa: B009  # opening it compares

    @cached_property
    def _model(self) -> "_Images":
        if self.folder is None:
            raise InputError("this rejector is not beside a model yet, expected embeddings; call save(folder) and load")
        return _Images(self.folder, self.info, self.weight)


class _Images:
    """The model in a folder, with the transform of its images."""

    def __init__(self, folder: Path, info: CacheInfo, weight: Tensor) -> None:
        self.model = load(folder)
        self.classifier = linear_classifier(self.model)
        found = self.classifier.weight.detach().flatten(1).float()
        # A saved cosine head has rows of another length.
        same = found.shape == weight.shape and torch.allclose(unit_rows(found), unit_rows(weight), atol=1e-5)
        if not (same and same_network(model_digest(self.model), info.key.model)):
            raise InputError(
                f"the model in {folder} is not the one that the rejector was fitted for; fit and save it again"
            )
        how, shape = info.preprocessing, info.image_shape
        if how is None or how.mean is None or how.std is None or shape is None:
            raise InputError("the rejector was fitted on features alone, expected embeddings; give these, not images")
        self.shape = (shape[0], shape[1], shape[2])
        self.mode = "L" if shape[0] == 1 else "RGB"
        self.transform = eval_transform(self.shape, how)
        self.normalize = Normalization.of_pretrained(how.mean, how.std, shape[0]).on(torch.device("cpu"))

    def pixels(self, image: "Image") -> Tensor:
        """Return an upright, opaque image as the network's input before normalisation, [channels, H, W]."""
        return torch.as_tensor(self.transform(image.convert(self.mode)))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.ndim != 4 or images.shape[1] != self.shape[0]:
            raise InputError(
                f"images have shape {list(images.shape)}, expected [B, {self.shape[0]}, H, W], normalised; call"
                " images.unsqueeze(0) on a single one, or give images of PIL, paths, or uint8 pixels"
            )
        with in_evaluation(self.model, self.classifier) as answers:
            return answers(images)


def _halved(value: Tensor) -> Tensor:
    """Return the same numbers in float16 if it holds them, as those of a model that is stored in float16."""
    half = value.half()
    return half if torch.equal(half.to(value.dtype), value) else value


def _whole(value: Tensor) -> Tensor:
    """Return a tensor of a file in torch's own memory: sums over memory of another alignment round differently."""
    return value.float() if value.dtype == torch.float16 else value.clone()


def _gaussian_of(detector: Any) -> TiedGaussian | None:
    if isinstance(detector, NormMahalanobis):
        return detector.mahalanobis.gaussian
    return detector.gaussian if isinstance(detector, Mahalanobis) else None


def _restored(score: str, tensors: dict[str, Tensor]) -> Any:
    if score not in SAVED:
        raise InputError(f"score is {score!r}, expected one of {', '.join(SAVED)}")
    if not SCORES[score].needs_train:
        return SCORES[score].fit(None)
    gaussian = TiedGaussian(tensors["means"], tensors["factor"], unit=score == "mahalanobis_unit")
    mahalanobis = Mahalanobis(gaussian)
    return NormMahalanobis(mahalanobis) if score == "norm_mahalanobis" else mahalanobis
