"""The figures of an evaluation, as many as its data allow, each with a caption."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cosify.evaluation.assessment import Assessment, scores_for
from cosify.evaluation.detection_metrics import Detection
from cosify.evaluation.diversity import class_angles_deg, span_angles_deg
from cosify.evaluation.feature_cache import FeatureCache
from cosify.evaluation.in_words import few
from cosify.evaluation.long_tail import long_tail_accuracy
from cosify.evaluation.rejector import Rejector
from cosify.evaluation.rows import to_tensor
from cosify.evaluation.scores import SCORES
from cosify.evaluation.split_half import measured_confidence
from cosify.plots.angles import plot_angles
from cosify.plots.class_sizes import ClassAccuracies, plot_class_sizes
from cosify.plots.detection import plot_detection_bars, plot_score_histograms
from cosify.plots.kappa_classes import plot_kappa_by_class, plot_kappa_histogram
from cosify.plots.kappa_trace import plot_kappa_trace
from cosify.plots.loss_curves import plot_simplified_loss
from cosify.plots.reliability import plot_reliability
from cosify.plots.tsne import plot_tsne

PAPER_SCORES = ("z_max", "norm", "norm_mahalanobis")  # of Figure 4
HISTOGRAMS = ("z_max", "norm")
TSNE_CLASSES, TSNE_SAMPLES, TSNE_LEAST = 10, 1000, 10
FILES = (
    *("angles.png", "class_sizes.png", "detection_miss.png", "detection_ood_*.png", "kappa_by_class_*.png"),
    *("kappa_histogram.png", "kappa_trace_*.png", "reliability.png", "scores_*.png", "simplified_loss.png", "tsne.png"),
)  # what `draw_figures` writes


@dataclass(frozen=True)
class Subject:
    """A model under evaluation.

    Attributes:
        assessment: what was measured.
        test: cache of the test split.
        ood: caches of outlier sets, by name.
        run: folder of its training; None if it has none.
        rejector: gives the score of the report's verdict and pictures; None for a model that is never right.
        train_counts: [C], training images of each class; None where they are not known.
    """

    assessment: Assessment
    test: FeatureCache
    ood: Mapping[str, FeatureCache]
    run: Path | None
    rejector: Rejector | None = None
    train_counts: Tensor | None = None

    @property
    def name(self) -> str:
        """Title of the model."""
        return self.assessment.model


@dataclass(frozen=True)
class Figure:
    """A picture in a report.

    Attributes:
        file: PNG file.
        title: what it shows.
        caption: how to read it.
    """

    file: Path
    title: str
    caption: str


def draw_figures(
    subjects: Sequence[Subject], folder: Path, classes: Sequence[int] | None = None, seed: int = 0
) -> list[Figure]:
    """Draw every figure that the data allow.

    Args:
        subjects: models, measured on the same sets, all of different titles.
        folder: where the PNG files go.
        classes: indices of the classes that t-SNE shows, at most ten; None for the first ten.
        seed: of t-SNE.
    """
    folder.mkdir(parents=True, exist_ok=True)
    features = _of_features(subjects, folder, classes, seed)
    return [*_of_training(subjects, folder), *features, *_of_scores(subjects, folder)]


def _of_training(subjects: Sequence[Subject], folder: Path) -> list[Figure]:
    figures = []
    for number, each in enumerate(subjects):
        if each.run is not None:
            file = plot_kappa_trace(each.run, folder / f"kappa_trace_{number}.png")
            caption = (
                "Loss, accuracy and, for a cosine head, kappa of the training samples, epoch by epoch (paper, Fig. 1)."
            )
            figures.append(Figure(file, f"Training of {each.name}", caption))
    kappas = {each.name: each.assessment.scan.head_kappa for each in subjects}
    own = {name: kappa for name, kappa in kappas.items() if kappa is not None}
    if own:
        file = plot_simplified_loss(subjects[0].test.info.num_classes, own, folder / "simplified_loss.png")
        caption = (
            "Eq. (15): a small kappa keeps pulling a feature to its class, a large one soon lets go (paper, Fig. 2)."
        )
        figures.append(Figure(file, "Loss by the cosine to the own class", caption))
    return figures


def _of_features(subjects: Sequence[Subject], folder: Path, classes: Sequence[int] | None, seed: int) -> list[Figure]:
    first = subjects[0].test
    chosen = sorted(range(min(TSNE_CLASSES, first.info.num_classes)) if classes is None else classes)
    rows = np.flatnonzero(np.isin(first.labels, chosen))
    # A zero feature has no direction, and every model shows the same images.
    rows = rows[np.all([each.test.embedding[rows].any(axis=1) for each in subjects], axis=0)]
    rows = rows[first_in_turns(first.labels[rows], TSNE_SAMPLES)]
    names = [first.info.label_names[index] for index in chosen]
    relabelled = np.searchsorted(chosen, first.labels[rows])
    figures = []
    if len(rows) >= TSNE_LEAST:
        file = plot_tsne(
            {each.name: each.test.embedding[rows] for each in subjects},
            {each.name: relabelled for each in subjects},
            names,
            folder / "tsne.png",
            seed=seed,
        )
        caption = f"{len(rows)} test images; a small kappa makes classes compact (paper, Fig. 3)."
        figures.append(Figure(file, "Features in two dimensions (t-SNE)", caption))

    spans = {each.name: _defined(span_angles_deg, each.test.embedding, each.test.weight) for each in subjects}
    labels = to_tensor(first.labels)
    own = {each.name: _defined(class_angles_deg, each.test.embedding, labels, each.test.weight) for each in subjects}
    file = plot_angles(own, spans, folder / "angles.png")
    caption = (
        "Left: how far features lie from the weight of their class. Right: from the subspace of all weights (Table 3)."
    )
    figures.append(Figure(file, "Angles of the features", caption))

    kappas = {each.name: each.test.ls_kappa().numpy() for each in subjects}
    file = plot_kappa_histogram(kappas, folder / "kappa_histogram.png")
    caption = "Eq. (11) for every test image; the candidates of Eq. (14) make the steps."
    figures.append(Figure(file, "kappa* of the test images", caption))
    for number, each in enumerate(subjects):
        target = folder / f"kappa_by_class_{number}.png"
        file = plot_kappa_by_class(kappas[each.name], each.test.labels, each.test.info.label_names, target)
        caption = "Mean and 10 to 90 percentile. Classes whose features lie far from their weight have a large kappa*."
        figures.append(Figure(file, f"kappa* by class, {each.name}", caption))
    uneven = [each for each in subjects if each.assessment.long_tail is not None and each.train_counts is not None]
    if uneven:
        file = plot_class_sizes({each.name: _by_class(each) for each in uneven}, folder / "class_sizes.png")
        caption = (
            "Each line is a mean over the classes of about as many training images; shaded: fewer than 20, and more"
            " than 100."
        )
        figures.append(Figure(file, "Accuracy by the number of training images", caption))
    return figures


def first_in_turns(labels: ArrayLike, most: int) -> NDArray[np.int64]:
    """Return at most `most` rows, ascending: the first of each class, then the second, as far as there are some.

    So every class has its share, however the rows are ordered.

    Args:
        labels: [N], integers.
        most: rows.
    """
    found = np.asarray(labels)
    order = np.argsort(found, kind="stable")
    turns = np.empty(len(found), dtype=np.int64)
    turns[order] = np.arange(len(found)) - np.searchsorted(found[order], found[order])
    return np.sort(np.argsort(turns, kind="stable")[:most])


def _by_class(subject: Subject) -> ClassAccuracies:
    counts = subject.train_counts
    assert counts is not None
    predictions, labels = to_tensor(subject.test.predictions), to_tensor(subject.test.labels)
    return ClassAccuracies(counts, long_tail_accuracy(predictions, labels, counts).by_class)


def _of_scores(subjects: Sequence[Subject], folder: Path) -> list[Figure]:
    figures = []
    for name in HISTOGRAMS:
        panels = {each.name: _groups(each, name) for each in subjects}
        file = plot_score_histograms(panels, folder / f"scores_{name}.png", score=SCORES[name].title)
        caption = "Right predictions should lie to the right of wrong ones and of outliers."
        figures.append(Figure(file, f"Confidence: {SCORES[name].title}", caption))
    groups = [("miss", "misclassified images", [each.assessment.miss for each in subjects])]
    groups += [(f"ood_{n}", name, [s.assessment.ood[name] for s in subjects]) for n, name in enumerate(subjects[0].ood)]
    for label, what, found in groups:
        if all(found):
            file = _bars(subjects, found, folder / f"detection_{label}.png", f"Telling right predictions from {what}")
            caption = "Average precision of the right predictions, with 95 % bootstrap intervals (paper, Fig. 4)."
            hints = {few(each) for by_score in found for each in by_score.values()} - {""}
            caption += f" It rests on only {'; '.join(sorted(hints))}." if hints else ""
            figures.append(Figure(file, f"Detection of {what}", caption))
    curves = {each.name: measured_confidence(each.test) for each in subjects}
    file = plot_reliability(curves, folder / "reliability.png")
    caption = (
        "Accuracy by confidence on half of the test images of each class, with the kappa that the head uses in"
        " evaluation; the diagonal is calibrated."
    )
    figures.append(Figure(file, "Reliability", caption))
    return figures


def _groups(subject: Subject, score: str) -> dict[str, Any]:
    of = scores_for(subject.test, None)[score]
    values = of(subject.test)
    found = {"correct": values[subject.test.correct], "misclassified": values[~subject.test.correct]}
    found |= {name: of(cache) for name, cache in subject.ood.items()}
    return {name: some for name, some in found.items() if len(some) > 0}


def _bars(subjects: Sequence[Subject], found: Sequence[Mapping[str, Detection]], file: Path, title: str) -> Path:
    values = {
        SCORES[score].title: {
            each.name: (one[score].ap, one[score].ap_interval.low, one[score].ap_interval.high)
            for each, one in zip(subjects, found, strict=True)
            if score in one
        }
        for score in PAPER_SCORES
        if any(score in one for one in found)
    }
    return plot_detection_bars(values, file, quantity="AP", title=title)


def _defined(angles: Callable[..., Tensor], *arguments: Any) -> Any:
    """Return the angles that are defined: a zero feature has none, nor has a span of all dimensions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the span has all dimensions: the figure says it
        found = angles(*arguments).numpy()
    return found[~np.isnan(found)]
