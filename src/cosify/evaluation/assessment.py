"""Everything that is measured from the feature caches of a model: Tables 3 and 4, Figure 4, and calibration."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from cosify.errors import InputError
from cosify.evaluation.calibration_error import Calibration, kappa_calibrations, temperature_calibrations
from cosify.evaluation.corrections import GroupAccuracy, group_accuracies, is_uneven
from cosify.evaluation.detection_metrics import RESAMPLES, Detection, detection
from cosify.evaluation.feature_cache import FeatureCache
from cosify.evaluation.kappa_scan import KappaScan, scan_features
from cosify.evaluation.rows import to_tensor
from cosify.evaluation.scores import SCORES, Scores
from cosify.evaluation.split_half import fitted_and_measured
from cosify.evaluation.transferability import Transfer

logger = logging.getLogger("cosify")

IdSubset = Literal["correct", "all"]


@dataclass(frozen=True)
class Assessment:
    """What was measured of one model.

    Attributes:
        model: title of the model.
        scan: kappa*, angles and rank over the test split.
        accuracy: on the test split, in [0, 1].
        mean_per_class: mean of the accuracies of single classes, over those that the split holds.
        num_test: samples of the test split.
        num_train: samples that scores were fitted on; 0 without training features.
        miss: by score: right predictions told from wrong ones, all in-distribution.
        ood: by outlier set and score: in-distribution samples told from outliers.
        id_subset: which in-distribution samples these are: `"correct"` as in the paper, `"all"` as in OpenOOD.
        excluded_classes: names of the classes that are left out of `ood`.
        calibration: by test-time kappa or temperature; fitted on half of each class, measured on the other half.
        transfer: results on other tasks, by name.
        long_tail: accuracy by the number of training images, by correction; None where classes have about as many.
    """

    model: str
    scan: KappaScan
    accuracy: float
    mean_per_class: float
    num_test: int
    num_train: int
    miss: Mapping[str, Detection]
    ood: Mapping[str, Mapping[str, Detection]]
    id_subset: IdSubset
    excluded_classes: tuple[str, ...]
    calibration: Mapping[str, Calibration]
    transfer: Mapping[str, Transfer]
    long_tail: Mapping[str, GroupAccuracy] | None = None

    def __repr__(self) -> str:
        return (
            f"Assessment of {self.model!r}: right on {self.accuracy:.1%} of {self.num_test:,} test images; see"
            " cosify.evaluation.verdict"
        )


def refuse_other_classes(of_model: int, of_data: int) -> None:
    """Raise a ValueError unless a model has as many classes as the data."""
    if of_model != of_data:
        raise InputError(
            f"the data have {of_data} classes and the model {of_model}, expected as many; evaluate on the set that the"
            " model was trained on, or look at kappa alone with cosify scan"
        )


def assess(
    model: str,
    test: FeatureCache,
    train: FeatureCache | None = None,
    *,
    ood: Mapping[str, FeatureCache] | None = None,
    transfer: Mapping[str, Transfer] | None = None,
    train_counts: Tensor | None = None,
    id_subset: IdSubset = "correct",
    exclude_classes: Sequence[int] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Assessment:
    """Measure a model from its feature caches.

    Args:
        model: title of the model.
        test: cache of the test split; its labels are the model's classes.
        train: cache of the training split, for scores that are fitted; None to leave these out.
        ood: caches of outlier sets, by name.
        transfer: results of `cosify.evaluation.transfer` on other tasks, by name.
        train_counts: [C], training images of each class, for the accuracy of large and small classes.
        id_subset: which in-distribution samples are told from outliers: `"correct"` or `"all"`.
        exclude_classes: indices of classes that the outlier sets contain, too; their samples are left out there.
        resamples: of the bootstrap, at least 100.
        seed: of the bootstrap.

    Raises:
        ValueError: if the labels are not the model's classes, the caches are of different models, no sample is left, or
            a setting is out of range.
    """
    refuse_other_classes(test.info.num_classes, len(test.info.label_names))
    if id_subset not in get_args(IdSubset):
        raise InputError(f"id_subset is {id_subset!r}, expected one of {', '.join(get_args(IdSubset))}")
    ood = {} if ood is None else ood
    others = [cache for cache in (train, *ood.values()) if cache is not None]
    if any(cache.info.key.model != test.info.key.model for cache in others):
        raise InputError("the caches are of different models, expected one; make all of them with the same")
    outside = [index for index in exclude_classes if not 0 <= index < test.info.num_classes]
    if outside:
        raise InputError(f"exclude_classes has {outside}, expected indices 0 to {test.info.num_classes - 1}")
    inside = ~np.isin(test.labels, exclude_classes)
    if not inside.any():
        raise InputError("exclude_classes leaves no sample of the test split, expected some; exclude fewer classes")
    accepted = inside if id_subset == "all" else inside & test.correct
    miss: dict[str, Detection] = {}
    found: dict[str, dict[str, Detection]] = {name: {} for name in ood}
    for name, score in scores_for(test, train).items():
        values = score(test)
        if test.correct.any() and not test.correct.all():
            miss[name] = detection(values[test.correct], values[~test.correct], resamples=resamples, seed=seed)
        if accepted.any():
            for outliers, cache in ood.items():
                found[outliers][name] = detection(values[accepted], score(cache), resamples=resamples, seed=seed)
    counts = np.bincount(test.labels, minlength=test.info.num_classes)
    right = np.bincount(test.labels, weights=test.correct, minlength=test.info.num_classes)
    return Assessment(
        model=model,
        scan=scan_features(test),
        accuracy=float(test.correct.mean()),
        mean_per_class=float((right[counts > 0] / counts[counts > 0]).mean()),
        num_test=len(test),
        num_train=0 if train is None else len(train),
        miss=miss,
        ood=found,
        id_subset=id_subset,
        excluded_classes=tuple(test.info.label_names[index] for index in exclude_classes),
        calibration=calibrations(test),
        transfer=transfer or {},
        long_tail=None if train_counts is None or not is_uneven(train_counts) else group_accuracies(test, train_counts),
    )


def scores_for(test: FeatureCache, train: FeatureCache | None) -> dict[str, Callable[[FeatureCache], Scores]]:
    """Return the scores that suit a model, by name, fitted on `train` where they need it."""
    is_cosine = test.info.kappa is not None
    fitted = {}
    for name, score in SCORES.items():
        if (score.of_cosine or not is_cosine) and (train is not None or not score.needs_train):
            try:
                fitted[name] = score.fit(train)
            except ValueError as error:  # too few samples, such as fewer than dimensions for a covariance
                logger.warning("score %s is left out: %s", name, error)
    return fitted


def calibrations(test: FeatureCache) -> dict[str, Calibration]:
    """Return calibration by test-time kappa (cosine head) or temperature (stock head).

    Kappa and temperature are fitted on half of each class; everything is measured on the other half.  Empty below four
    samples, and where the model's logits are not those of its classifier, as in networks that average two heads.
    """
    if len(test) < 4 or not test.info.output_is_classifier:
        return {}
    embedding, labels = to_tensor(test.embedding), to_tensor(test.labels)
    fit, measured = fitted_and_measured(test.labels)
    if test.info.kappa is not None:
        return kappa_calibrations(
            embedding[measured],
            labels[measured],
            test.weight,
            running_kappa=test.info.kappa,
            fit=(embedding[fit], labels[fit]),
            is_calibrated=isinstance(test.info.eval_kappa, (int, float)),
        )
    halves = [FeatureCache.of_rows(test.info, test.weight, test.bias, embedding[part]) for part in (measured, fit)]
    return temperature_calibrations(halves[0].logits, labels[measured], fit=(halves[1].logits, labels[fit]))
