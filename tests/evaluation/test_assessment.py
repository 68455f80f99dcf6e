"""An assessment is its parts; tables and settings."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from cosify.evaluation import SCORES, FeatureCache, assess, detection, tables_of, transfer
from cosify.evaluation.assessment import calibrations
from tests.evaluation.caches import make_cache


@pytest.fixture(scope="module")
def train() -> FeatureCache:
    return make_cache(300, seed=1)


@pytest.fixture(scope="module")
def test() -> FeatureCache:
    return make_cache(200, seed=2, spread=1.0)  # wrong often enough in either half


@pytest.fixture(scope="module")
def far() -> FeatureCache:
    return make_cache(100, seed=3, labels=torch.full((100,), -1))


def test_detections_are_those_of_the_scores(train: FeatureCache, test: FeatureCache, far: FeatureCache) -> None:
    found = assess("model", test, train, ood={"far": far}, resamples=100)
    assert set(found.miss) == set(found.ood["far"]) == set(SCORES) - {"max_logit"}
    for name in found.miss:
        score = SCORES[name].fit(train)
        values, right = score(test), test.correct
        assert found.miss[name] == detection(values[right], values[~right], resamples=100)
        assert found.ood["far"][name] == detection(values[right], score(far), resamples=100)
    assert found.accuracy == np.mean(test.predictions == test.labels)
    per_class = [np.mean(test.correct[test.labels == label]) for label in range(4)]
    assert found.mean_per_class == pytest.approx(np.mean(per_class))
    assert (found.num_test, found.num_train) == (200, 300)


def test_subsets_of_the_in_distribution_samples(test: FeatureCache, far: FeatureCache) -> None:
    counts = {}
    for subset in ("correct", "all"):
        found = assess("m", test, ood={"far": far}, id_subset=subset, exclude_classes=[1, 3], resamples=100)  # type: ignore[arg-type]
        counts[subset] = found.ood["far"]["z_max"].num_positive
        assert found.excluded_classes == ("class 1", "class 3")
        assert found.miss["z_max"].num_positive == int(test.correct.sum())  # of all classes
    inside = np.isin(test.labels, [0, 2])
    assert counts == {"correct": int((inside & test.correct).sum()), "all": int(inside.sum())}


def test_without_training_features_fitted_scores_are_left_out(test: FeatureCache) -> None:
    assert set(assess("m", test, resamples=100).miss) == {"z_max", "norm", "msp", "energy"}
    stock = make_cache(200, kappa=None, bias=True)
    assert set(assess("m", stock, resamples=100).miss) == {"z_max", "norm", "msp", "energy", "max_logit"}


def test_a_perfect_model_has_no_misclassified_samples() -> None:
    labels = torch.arange(40) % 4
    cache = make_cache(40, labels=labels, spread=1.0, predictions=labels)
    found = assess("m", cache, resamples=100)
    assert found.miss == {}
    assert all("Fig. 4a" not in table.title for table in tables_of([found]))


def test_calibration_follows_the_head_and_keeps_the_labels(test: FeatureCache) -> None:
    cosine = calibrations(test)
    assert set(cosine) == {"running", "sample", "fitted"}
    stock = calibrations(make_cache(200, kappa=None, bias=True))
    assert set(stock) == {"uncalibrated", "temperature"}
    for found in (cosine, stock):
        assert len({each.accuracy for each in found.values()}) == 1
        assert all(each.num_samples == 100 for each in found.values())
    assert cosine["running"].kappa == test.info.kappa
    calibrated = calibrations(dataclasses.replace(test, info=dataclasses.replace(test.info, eval_kappa=9.0)))
    assert list(calibrated.items()) == [("calibrated", cosine["running"]), *list(cosine.items())[1:]]
    two_heads = dataclasses.replace(test.info, output_is_classifier=False)
    assert calibrations(dataclasses.replace(test, info=two_heads)) == {}


def test_calibration_is_measured_on_all_classes() -> None:
    labels = torch.arange(400) % 4  # even rows are of other classes than odd ones
    predictions = torch.where(labels % 2 == 1, labels, (labels + 1) % 4)
    embedding = make_cache(labels=predictions, spread=0.3).embedding
    cache = make_cache(labels=labels, embedding=torch.from_numpy(np.array(embedding)))
    found = calibrations(cache)["fitted"]
    assert (found.num_samples, found.accuracy) == (200, pytest.approx(0.5, abs=0.05))


def test_numbers_in_tables_are_those_of_the_assessment(
    train: FeatureCache, test: FeatureCache, far: FeatureCache
) -> None:
    tasks = {"task": transfer(make_cache(100, seed=5), lambdas=(1.0,))}
    found = [assess(name, test, train, ood={"far": far}, transfer=tasks, resamples=100) for name in ("a|b", "c")]
    tables = {table.title: table for table in tables_of(found)}
    assert len(tables) == 6
    for table in tables.values():
        assert all(len(row) == len(table.header) for row in table.rows)
        assert table.markdown().count("\n|") == len(table.rows) + 2
    ap = found[0].miss["z_max"].ap
    assert any(
        row[:2] == ("z_max", "a|b") and row[2].startswith(f"{ap:.3f} [")
        for row in tables["Misclassified samples (Fig. 4a)"].rows
    )
    assert "| a\\|b |" in tables["Transfer (Table 4a)"].markdown()
    assert "right predictions" in tables["Outliers: far (Fig. 4b)"].note
    json.dumps([dataclasses.asdict(each) for each in found], allow_nan=False)


def test_settings_that_do_not_fit_are_refused(test: FeatureCache) -> None:
    with pytest.raises(ValueError, match="expected indices 0 to 3"):
        assess("m", test, exclude_classes=[4])
    with pytest.raises(ValueError, match="id_subset is 'some', expected one of correct, all"):
        assess("m", test, id_subset="some")  # type: ignore[arg-type]
    foreign = dataclasses.replace(test, info=dataclasses.replace(test.info, label_names=("a", "b")))
    with pytest.raises(ValueError, match=r"the data have 2 classes and the model 4.*cosify scan"):
        assess("m", foreign)


def test_caches_of_two_models_do_not_mix(train: FeatureCache, test: FeatureCache) -> None:
    key = dataclasses.replace(train.info.key, model="another")
    other = dataclasses.replace(train, info=dataclasses.replace(train.info, key=key))
    with pytest.raises(ValueError, match="the caches are of different models"):
        assess("m", test, other)
    with pytest.raises(ValueError, match="the caches are of different models"):
        assess("m", test, ood={"far": other})


def test_a_model_that_is_always_wrong_has_an_assessment(far: FeatureCache) -> None:
    labels = torch.arange(40) % 4
    cache = make_cache(40, labels=labels, spread=1.0, predictions=(labels + 1) % 4)
    found = assess("m", cache, ood={"far": far}, resamples=100)
    assert (found.accuracy, found.miss, found.ood) == (0.0, {}, {"far": {}})
    assert len(tables_of([found])) >= 3


def test_scores_that_cannot_be_fitted_are_left_out(test: FeatureCache, caplog: pytest.LogCaptureFixture) -> None:
    few = make_cache(3, seed=1)
    found = assess("m", test, few, resamples=100)
    assert "mahalanobis" not in found.miss
    assert "score mahalanobis is left out: the covariance" in caplog.text
    with pytest.raises(ValueError, match="exclude_classes leaves no sample"):
        assess("m", test, exclude_classes=range(4))
