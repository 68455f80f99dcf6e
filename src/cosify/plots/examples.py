"""Pictures that a report shows: the surest and least sure answers, the surest mistakes, what is turned away.

The feature caches say which ones; the pictures themselves come from the data, which have the same order of rows.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from cosify.data import Splits
from cosify.data.decode import open_image, undecoded
from cosify.errors import InputError
from cosify.evaluation.feature_cache import FeatureCache
from cosify.evaluation.scores import SCORES
from cosify.plots.figures import Subject

SHOWN = 8  # pictures of a group
MOST_GROUPS = 24  # of a report, which keeps its pictures below 4 MB
SIDE = 128  # pixels, at most, of an embedded picture
LOSSLESS_SIDE = 64  # pixels; a picture up to this size stays as it is
NAME = 40  # characters, at most, of a class name that is shown


@dataclass(frozen=True)
class Example:
    """A picture with what the model says of it.

    Attributes:
        uri: the picture itself, as a data URI.
        text: in place of the picture, for those who do not see it.
        answer: the predicted class.
        truth: the class of the label; None where the answer is right, or there is no label.
        score: of the answer.
        small: whether it is shown enlarged, pixel by pixel.
    """

    uri: str
    text: str
    answer: str
    truth: str | None
    score: float
    small: bool


@dataclass(frozen=True)
class ExampleGroup:
    """Pictures of one kind.

    Attributes:
        title: the kind.
        examples: at most `SHOWN`.
    """

    title: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Examples:
    """All pictures of a report.

    Attributes:
        groups: of all models.
        note: how to read them, or why there are none.
    """

    groups: tuple[ExampleGroup, ...]
    note: str


def find_examples(subjects: Sequence[Subject], test: Splits, ood: Mapping[str, Splits]) -> Examples:
    """Choose pictures, and fetch them.

    Args:
        subjects: models; one without a rejector, because it is never right, has no pictures.
        test: the images of the models' test caches, as test split.
        ood: the images of their outlier caches, as test splits, by name.

    Returns:
        The pictures; none, and a note that says why, where the images cannot be opened again.
    """
    every = (group for subject in subjects for group in _groups(subject, test, ood))
    try:
        groups, more = tuple(islice(every, MOST_GROUPS)), next(every, None) is not None
    except (ValueError, OSError) as error:  # files that are gone or damaged since
        return Examples((), f"The pictures are left out: an image could not be opened again ({error}).")
    if not groups:
        return Examples((), "There are no pictures to show: no answer is right, so that there is no threshold.")
    scores = sorted({SCORES[each.rejector.score].title for each in subjects if each.rejector is not None})
    note = (
        f"At most {SHOWN} of a kind. Below each picture stand the model's answer, the label where it is another, and"
        f" the score ({', '.join(scores)}): larger is surer."
    )
    return Examples(groups, f"{note} More kinds are left out, to keep this file small." if more else note)


def _groups(subject: Subject, test: Splits, ood: Mapping[str, Splits]) -> Iterator[ExampleGroup]:
    """Yield the kinds of pictures of one model that occur."""
    rejector, cache = subject.rejector, subject.test
    if rejector is None:
        return
    names = cache.info.label_names
    scores = np.asarray(rejector.detector(cache))
    for kind, which, order in (
        ("surest right answers", cache.correct, -scores),
        ("least sure answers", np.ones(len(cache), dtype=bool), scores),
        ("surest mistakes", ~cache.correct, -scores),
    ):
        if which.any():
            rows = _first(which, order)
            labels = [names[label] for label in cache.labels[rows]]
            yield ExampleGroup(f"{subject.name}: {kind}", _examples(cache, rows, scores, test, names, labels))
    for name, outliers in subject.ood.items():
        scores = np.asarray(rejector.detector(outliers))
        rejected = scores < rejector.threshold
        for kind, which, order in (("turned away from", rejected, scores), ("accepted from", ~rejected, -scores)):
            if which.any():
                examples = _examples(outliers, _first(which, order), scores, ood[name], names, None)
                yield ExampleGroup(f"{subject.name}: {kind} the unseen set {name}", examples)


def _examples(
    cache: FeatureCache,
    rows: Sequence[int],
    scores: Any,
    images: Splits,
    names: Sequence[str],
    labels: Sequence[str] | None,
) -> tuple[Example, ...]:
    split = undecoded(images.test.select_columns([images.image_column]), images.image_column)
    if len(split) != len(cache):
        raise InputError(f"the data have {len(split)} images, the features are of {len(cache)}")
    examples = []
    for place, row in enumerate(map(int, rows)):
        image = open_image(split[row][images.image_column], row, "test")
        answer, score = names[cache.predictions[row]], float(scores[row])
        truth = None if labels is None or labels[place] == answer else labels[place]
        other = "" if truth is None else f", the label {truth}"
        text = f"Image in row {row}: the answer is {answer}{other}, the score {score:.3g}"
        shown = None if truth is None else _short(truth)
        small = max(image.size) <= LOSSLESS_SIDE
        examples.append(Example(data_uri(image), text, _short(answer), shown, score, small))
    return tuple(examples)


def _first(which: Any, order: Any) -> Any:
    """Return the rows of the smallest `order` among those of `which`, at most `SHOWN`."""
    rows = np.flatnonzero(which)
    return rows[np.argsort(order[rows], kind="stable")[:SHOWN]]


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 3]}..."


def data_uri(image: Any) -> str:
    """Return an upright, opaque image of Pillow as a data URI, at most 128 pixels wide and high."""
    small = image.copy()
    small.info = {}  # colour profiles and comments have any size, and may say more than the picture
    kind, settings = "png", {}
    if max(small.size) > LOSSLESS_SIDE:
        small.thumbnail((SIDE, SIDE))
        kind, settings = "jpeg", {"quality": 85}
    file = io.BytesIO()
    small.save(file, kind, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
