"""From splits to their pipeline: resident on the device where that suits them, worker processes otherwise."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

import torch

from cosify.data.augmentation import Augmentation
from cosify.data.decode import channels_of, has_colour, undecoded
from cosify.data.device import DeviceData
from cosify.data.normalize import Normalization
from cosify.data.preprocessing import PLAIN, Preprocessing
from cosify.data.processor import ImageProcessor
from cosify.data.sources import BUILT_IN, Splits, base_and_split
from cosify.data.tensors import Layout, decode_splits
from cosify.data.unreadable import SEARCHED, open_or_hint, open_or_name_all
from cosify.data.workers import WorkerData, default_num_workers
from cosify.errors import InputError
from cosify.settings.transform import Augment, Pipeline, check_transform

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("cosify")

Data = DeviceData | WorkerData
SURVEYED = 64  # images of a split whose size and colour are looked at
LARGEST_RESIDENT_SIDE = 128  # pixels; larger images want random scales, which need the original
# Of both splits decoded: Tiny ImageNet is 1.3 GiB.  Fixed, because the augmentation follows from the pipeline: what is
# free at the moment, or on another machine, must not change it.
RESIDENT_BYTES = 2 << 30


@dataclass(frozen=True)
class PipelineSettings:
    """How images become batches.

    Attributes:
        augment: timm's training transform, shift by up to an eighth of the side with or without mirroring, or none;
            `"auto"` is the shift where the set is resident and timm's otherwise, without mirroring for digits.
        transform: arguments of `timm.data.create_transform`; any makes `augment` timm.
        pipeline: `"auto"` is the device if all images are alike, small, and take at most 2 GiB together, decoded.
        num_workers: processes a rank; None for its share of the cores, at most 8.
    """

    augment: Augment = "auto"
    transform: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Pipeline = "auto"
    num_workers: int | None = None


@dataclass(frozen=True)
class Survey:
    """What a sample of the training images looks like; one channel only if that of the test split is grey, too."""

    channels: int  # that reach the network
    side: tuple[int, int]  # height and width of the first
    alike: bool
    made_grey: bool = False  # for a network of one channel, though there is colour


def open_data(
    splits: Splits,
    settings: PipelineSettings,
    preprocessing: Preprocessing,
    *,
    data: str,
    device: torch.device,
    show_progress: bool = False,
    survey: Survey | None = None,
) -> Data:
    """Choose the pipeline and build it.

    Args:
        splits: train and test split.
        settings: how images become batches.
        preprocessing: what the network expects.
        data: name of the set; the built-in ones have a left and a right.
        device: where batches go.
        show_progress: draw a bar while images are decoded.
        survey: of these images, where `choose_pipeline` has looked at them already.

    Raises:
        ValueError: if images cannot be read, the settings contradict each other, or memory does not suffice.
    """
    built_in = base_and_split(data)[0] in BUILT_IN
    pipeline, survey = choose_pipeline(splits, settings, preprocessing, survey)
    if pipeline == "device":
        shift: Augmentation = "crop" if built_in else "crop-flip"
        if settings.augment != "auto":
            shift = settings.augment  # type: ignore[assignment]  # not timm, which is never resident
        side = preprocessing.fallback_size
        expected = preprocessing if preprocessing.is_own else replace(preprocessing, **PLAIN)
        train, test = decode_splits(
            splits,
            image_size=preprocessing.image_size,
            fallback_size=side,
            device=device,
            channels=preprocessing.channels,
            show_progress=show_progress,
            scaled_by=None if expected.is_plain else lambda channels: eval_transform((channels, side, side), expected),
        )
        return DeviceData(
            train,
            test,
            splits.label_names,
            shift,
            _given(preprocessing, train.images.shape[1]),
            expected,
        )
    if survey is None:  # the pipeline was asked for
        survey = _survey(splits, preprocessing)
    shape = _shape(survey, preprocessing)
    options = dict(settings.transform)
    if survey.channels == 1 and options.get("auto_augment"):
        raise InputError(
            "transform has auto_augment, but the images are grey, and timm's policies take colour alone; drop it"
        )
    if settings.augment == "auto" and built_in:
        options.setdefault("hflip", 0.0)  # digits are no mirror images of each other
    augmentation = "timm" if settings.augment == "auto" or settings.transform else settings.augment
    workers = default_num_workers() if settings.num_workers is None else settings.num_workers
    return WorkerData(
        splits,
        train_transform=train_transform(augmentation, options, shape, preprocessing),
        test_transform=eval_transform(shape, preprocessing),
        image_shape=shape,
        augmentation=augmentation,
        normalization=_given(preprocessing, survey.channels),
        convert=preprocessing.channels is not None,
        num_workers=workers,
        device=device,
        scaling=preprocessing,
    )


def choose_pipeline(
    splits: Splits, settings: PipelineSettings, preprocessing: Preprocessing, survey: Survey | None = None
) -> tuple[Literal["device", "workers"], Survey | None]:
    """Return the pipeline that `open_data` takes; it follows from the data and the settings alone.

    Args:
        splits: train and test split.
        settings: how images become batches.
        preprocessing: what the network expects.
        survey: of these images, if there is one.

    Returns:
        The pipeline, and the survey of the images where it follows from them.

    Raises:
        ValueError: if images cannot be read, or the settings contradict each other.
    """
    wants_timm = settings.augment == "timm" or bool(settings.transform)
    if preprocessing.processor is not None and (settings.augment != "none" or settings.transform):
        raise InputError(
            "images of a transformers model go through its own image processor, which augments nothing, expected"
            " augment none; to train here, name a timm model"
        )
    if settings.transform and settings.augment not in ("auto", "timm"):
        raise InputError(
            f"augment is {settings.augment!r} and transform is {dict(settings.transform)}, expected one of them; use"
            " augment timm, or drop transform"
        )
    if settings.pipeline == "device" and (wants_timm or splits.streaming or preprocessing.processor is not None):
        why = "streaming" if splits.streaming else "timm's transform" if wants_timm else "a model's image processor"
        raise InputError(f"pipeline is 'device' with {why}, which needs worker processes; use pipeline auto or workers")
    if preprocessing.processor is not None or wants_timm or splits.streaming:
        return "workers", survey
    if survey is None and (settings.pipeline == "auto" or preprocessing.channels == 1):
        survey = _survey(splits, preprocessing)
    if settings.pipeline != "auto":
        return settings.pipeline, survey
    assert survey is not None
    side = survey.side if preprocessing.image_size is None else (preprocessing.image_size,) * 2
    assert splits.num_test is not None
    num_bytes = (splits.num_train + splits.num_test) * Layout(survey.channels, *side, resize=False).num_bytes
    fits = survey.alike and max(side) <= LARGEST_RESIDENT_SIDE and num_bytes <= RESIDENT_BYTES
    return "device" if fits else "workers", survey


def _shape(survey: Survey, preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Return channels, height and width that images reach the network with, from the workers."""
    if preprocessing.processor is not None:
        return ImageProcessor(preprocessing.processor).shape_of(survey.side[::-1], survey.channels)
    if preprocessing.image_size is not None:
        return (survey.channels, preprocessing.image_size, preprocessing.image_size)
    if survey.alike and max(survey.side) <= LARGEST_RESIDENT_SIDE:
        return (survey.channels, *survey.side)
    return (survey.channels, preprocessing.fallback_size, preprocessing.fallback_size)


def train_transform(
    augmentation: str, options: Mapping[str, Any], shape: tuple[int, int, int], preprocessing: Preprocessing
) -> Callable[[Any], Any]:
    """Return what a worker does to a training image: timm's transform, or the shift of the resident pipeline.

    Args:
        augmentation: `"timm"`, `"crop-flip"`, `"crop"`, `"flip"` or `"none"`.
        options: arguments of `timm.data.create_transform`.
        shape: channels, height and width that come out.
        preprocessing: for the interpolation.

    Raises:
        ValueError: for options that timm's transform does not take.
    """
    from timm.data import create_transform
    from torchvision import transforms

    if augmentation == "timm":
        check_transform(options)
        settings = {"interpolation": preprocessing.interpolation, **options}
        made: Callable[[Any], Any] = create_transform(shape, is_training=True, use_prefetcher=True, **settings)
        return made
    steps = [eval_transform(shape, preprocessing)]
    if "crop" in augmentation:
        steps.append(torch.as_tensor)
        steps.append(transforms.RandomCrop(shape[1:], padding=max(1, min(shape[1:]) // 8)))
    if "flip" in augmentation:
        steps.append(transforms.RandomHorizontalFlip())
    composed: Callable[[Any], Any] = transforms.Compose(steps)
    return composed


def eval_transform(shape: tuple[int, int, int], preprocessing: Preprocessing) -> Callable[[Any], Any]:
    """Return what an image goes through in evaluation: from PIL to [channels, H, W], resized and cropped.

    uint8 by timm's transform; what a transformers model's own image processor gives is float, and normalised.

    Args:
        shape: channels, height and width that come out.
        preprocessing: of the network.
    """
    from timm.data import create_transform

    if preprocessing.processor is not None:
        return ImageProcessor(preprocessing.processor, shape)
    normalization = _given(preprocessing, shape[0])
    made: Callable[[Any], Any] = create_transform(
        shape,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
        mean=(0.5,) * shape[0] if normalization is None else normalization.mean,  # for borders alone
        use_prefetcher=True,
    )
    return made


def _given(preprocessing: Preprocessing, channels: int) -> Normalization | None:
    if preprocessing.mean is None or preprocessing.std is None:
        return None
    return Normalization.of_pretrained(preprocessing.mean, preprocessing.std, channels)


def _survey(splits: Splits, preprocessing: Preprocessing) -> Survey:
    images = list(_looked_at(splits, "train"))
    if not images:
        raise InputError("the stream of split 'train' has no rows, expected at least one image; check its files")
    sides = {(image.height, image.width) for image in images}
    channels = preprocessing.channels
    of_both = chain(images, _looked_at(splits, "test"))  # read if need be
    if channels is None:
        channels = 3 if any(channels_of(each) == 3 for each in of_both) else 1
    made_grey = preprocessing.channels == 1 and any(map(has_colour, of_both))
    if made_grey and preprocessing.mean is not None:  # of a trained network; from scratch, grey was asked for
        logger.warning("the model takes grey images, and does not see the colour of these, of %s", splits.classes)
    return Survey(channels, (images[0].height, images[0].width), len(sides) == 1, made_grey)


def _looked_at(splits: Splits, name: str) -> Iterator["Image"]:
    column, split = splits.image_column, splits.split(name)
    if splits.streaming:
        rows: Any = enumerate(islice(undecoded(split, column), SURVEYED))
    else:
        chosen = range(0, len(split), max(1, math.ceil(len(split) / SURVEYED)))
        rows = zip(chosen, undecoded(split.select_columns([column]).select(chosen), column), strict=True)
    few = splits.num_test is not None and splits.num_train + splits.num_test <= SEARCHED
    for row, cells in rows:
        value = cells[column]
        yield open_or_name_all(splits, value, row, name) if few else open_or_hint(value, row, name)
