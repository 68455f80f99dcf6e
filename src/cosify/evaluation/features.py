"""The one pass of a model over a set of images, into a feature cache."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosify.data import Data, PipelineSettings, Preprocessing, Shard, Splits, open_data
from cosify.data.batches import ALONE, eval_rows
from cosify.errors import InputError
from cosify.evaluation.cache_writer import CacheWriter
from cosify.evaluation.feature_cache import CacheInfo, CacheKey, FeatureCache, StaleCacheError
from cosify.heads import CosineHead
from cosify.integrations import compat
from cosify.models import in_evaluation, linear_classifier
from cosify.models.network_identity import model_digest

logger = logging.getLogger("cosify")

# In a batch.  What it leaves between two layers should stay in the cache: one core (AVX2) takes for 64 images of 224 px
# 1.5 times as long in batches of 16, 2.3 in 32 and 2.9 in 64 as in 8 (EfficientNet-Lite0; 1.0, 1.4, 1.7 a ResNet-50).
PIXELS_ON_CPU = 8 * 224 * 224


@dataclass(frozen=True)
class FeaturePass:
    """How a model is run over images.

    Attributes:
        batch_size: images in a batch; None for 256, on a CPU at most 32, of 224 pixels 8.
        num_workers: processes that decode images; None for the number of cores, at most 8.
        shard: rank of this process and number of processes; all must see the folder.
        wait: a barrier: returns when every process has called it.
        show_progress: draw a progress bar.
    """

    batch_size: int | None = None
    num_workers: int | None = None
    shard: Shard = ALONE
    wait: Callable[[], None] = lambda: None
    show_progress: bool = False

    def at_once(self, device: torch.device, image_shape: Sequence[int]) -> int:
        """Return how many images of (channels, height, width) are in a batch on a device."""
        if self.batch_size is not None:
            return self.batch_size
        if device.type != "cpu":
            return 256
        return max(1, min(32, PIXELS_ON_CPU // (image_shape[1] * image_shape[2])))


def cache_features(
    model: nn.Module, images: Splits, preprocessing: Preprocessing, folder: Path | str, run: FeaturePass | None = None
) -> FeatureCache:
    """Return the features of a model over a split: from the cache if it is there, else from one pass of the model.

    The pass is in evaluation mode, without augmentation and in the weights' own precision; it holds one batch in
    memory.  A cache of another model, other data or another transform is replaced.

    Args:
        model: classifier of timm or transformers, on the device that is to run it; its mode is restored.
        images: their test split is used; see `Splits.only` and `cosify.data.load_images`.
        preprocessing: what the model expects, such as `Preprocessing.of_pretrained(model)`.
        folder: of the cache.
        run: batch size and processes; None for one process.

    Raises:
        ValueError: if the model has no classifier or gives NaN, images cannot be read, or the folder holds something
            that is not a feature cache.
        OSError: if the disk is full.
    """
    run = FeaturePass() if run is None else run
    folder = Path(folder)
    key = cache_key(model, images, preprocessing)
    try:
        cache = FeatureCache.open(folder, key)
    except FileNotFoundError:
        pass
    except StaleCacheError as stale:
        logger.info("%s; it is made anew", stale)
    else:
        logger.info("features of %d images are in %s", len(cache), folder)
        return cache
    run.wait()  # until every process has seen the old one
    return _extract(model, images, preprocessing, folder, key, run)


def cache_key(model: nn.Module, images: Splits, preprocessing: Preprocessing) -> CacheKey:
    """Return what the cache of a model's features over the test split of `images` depends on."""
    fingerprint = f"{compat.fingerprint_of(images.test)} {images.image_column} {images.label_column}"
    return CacheKey(model_digest(model), fingerprint, repr(preprocessing))


@torch.no_grad()
def _extract(
    model: nn.Module, images: Splits, preprocessing: Preprocessing, folder: Path, key: CacheKey, run: FeaturePass
) -> FeatureCache:
    classifier = linear_classifier(model)
    weight = classifier.weight.detach().flatten(1).float()
    is_cosine = isinstance(classifier, CosineHead)
    data = open_unaugmented(images, preprocessing, weight.device, run)
    info = CacheInfo(
        key=key,
        num_samples=len(images.test),
        dim=weight.shape[1],
        num_classes=weight.shape[0],
        label_names=images.label_names,
        kappa=classifier.inference_kappa() if is_cosine else None,
        kappa_policy=classifier.kappa_spec if is_cosine else None,
        eval_kappa=classifier.eval_kappa if is_cosine else None,
        image_shape=tuple(data.image_shape),
        preprocessing=preprocessing,
    )
    writer = CacheWriter(folder, info)
    try:
        if run.shard.rank == 0:
            writer.create()
        run.wait()
        writer.open()
        batch_size = run.at_once(weight.device, data.image_shape)
        rows = list(eval_rows(info.num_samples, batch_size, run.shard))
        batches = shown(data.test_batches(batch_size, run.shard), len(rows), folder.name, run)
        with in_evaluation(model, classifier) as answers:
            for place, (pixels, labels) in zip(rows, batches, strict=True):
                embedding, logits = answers(pixels)
                check_finite(place, embedding, logits)
                writer.write(place.start, embedding, logits, labels, weight)
        writer.close()
        run.wait()
        if run.shard.rank == 0:
            writer.finish(weight, None if is_cosine else getattr(classifier, "bias", None))
        run.wait()
    finally:
        writer.release()
    return FeatureCache.open(folder, key)


def open_unaugmented(images: Splits, preprocessing: Preprocessing, device: torch.device, run: FeaturePass) -> Data:
    """Return images as batches for a pass, as the model expects them."""
    return open_data(
        images,
        PipelineSettings("none", pipeline="auto" if preprocessing.is_plain else "workers", num_workers=run.num_workers),
        preprocessing,
        data="",
        device=device,
        show_progress=run.show_progress,
    )


def check_finite(rows: range, *answers: Tensor) -> None:
    """Raise a ValueError if a model's answers [B, ...] to images in these rows hold NaN or infinity."""
    if any(int((~answer.isfinite()).sum()) > 0 for answer in answers):
        raise InputError(
            f"the model gives NaN or infinity for images in rows {rows.start} to {rows.stop - 1}, expected numbers;"
            " look at its weights and at these images"
        )


def shown(batches: Any, total: int, title: str, run: FeaturePass) -> Any:
    """Return the batches of a pass, with a progress bar if the pass has one."""
    from rich.markup import escape
    from rich.progress import track

    return track(batches, f"features for {escape(title)}", total=total, disable=not run.show_progress, transient=True)
