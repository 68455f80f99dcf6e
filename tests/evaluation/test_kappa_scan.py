"""The scan against its parts, and what it recommends."""

import dataclasses

import pytest
import torch

from cosify.evaluation import scan_features
from cosify.functional import adacos_kappa, expected_kappa, kappa_grid, ls_kappa
from tests.evaluation.caches import make_cache


@pytest.mark.parametrize("kappa", [16.0, None])
def test_the_scan_is_its_parts(kappa: float | None) -> None:
    cache = make_cache(300, kappa=kappa, num_classes=6)
    scan = scan_features(cache)
    own = ls_kappa(torch.from_numpy(cache.embedding), cache.weight).double()
    assert scan.kappa.mean == pytest.approx(float(own.mean()), rel=1e-6)
    assert sum(scan.kappa.histogram) == scan.num_samples == 300
    assert scan.adacos == adacos_kappa(6)
    assert scan.expected == expected_kappa(6)
    assert scan.mean_top_cosine == pytest.approx(float(cache.top_cosine[:, 0].mean()))
    assert scan.expected_here == pytest.approx(expected_kappa(6, scan.mean_top_cosine))
    assert scan.accuracy == cache.correct.mean()
    assert scan.head == ("softmax" if kappa is None else "cosine, 16.0")


def test_where_features_and_classes_are_the_closed_form_so_is_kappa() -> None:
    """Orthogonal classes and features at cosine c to their own, the rest orthogonal: evaluation.md, 0.2."""
    num_classes, c = 20, 0.75
    basis = torch.eye(2 * num_classes)
    weight = basis[:num_classes]
    embedding = c * weight + (1 - c * c) ** 0.5 * basis[num_classes:]
    scan = scan_features(make_cache(embedding=embedding, weight=weight, labels=torch.arange(num_classes)))
    nearest = (kappa_grid().log() - torch.tensor(scan.expected).log()).abs().argmin()
    assert scan.kappa.mean in [pytest.approx(float(kappa_grid()[index]), rel=1e-5) for index in (nearest, nearest + 1)]
    assert scan.expected_here == pytest.approx(scan.expected, rel=1e-5)
    assert scan.diversity.mean_class_angle_deg == pytest.approx(41.4096, abs=1e-3)
    assert scan.diversity.mean_span_angle_deg == pytest.approx(41.4096, abs=1e-3)


def test_what_ls_has_trained_is_measured_and_others_follow_from_the_classes() -> None:
    cache = make_cache(300, num_classes=6)
    trained = dataclasses.replace(cache, info=dataclasses.replace(cache.info, kappa_policy="ls"))
    scan = scan_features(trained)
    by_purpose = {each.purpose: each.kappa for each in scan.recommendations}
    assert by_purpose["rejection"] == scan.kappa.mean
    assert by_purpose["accuracy"] == 2 * scan.kappa.mean
    assert by_purpose["transfer"] == max(60.0, 4 * scan.kappa.mean)
    assert not any("not trained with LS" in warning for warning in scan.warnings)
    for other in (cache, make_cache(300, num_classes=6, kappa=None)):
        scan = scan_features(other)
        assert scan.recommendations[0].kappa == pytest.approx(1.2 * expected_kappa(6))
        assert any("not trained with LS" in warning for warning in scan.warnings)


def test_the_recommendation_for_other_models_holds_for_the_papers_kappas() -> None:
    """Tables 2, 6 and 7: where LS ended, within half of what is recommended without training."""
    for num_classes, ended in {
        10: 5.39,
        100: 11.17,
        101: 8.30,
        1000: 12.83,
        8142: 18.54,
        365: 11.8,
        93431: 16.56,
    }.items():
        assert 2 / 3 < 1.2 * expected_kappa(num_classes) / ended < 1.5


def test_edges_and_foreign_labels_are_said() -> None:
    weight = torch.eye(4)
    lost = scan_features(
        make_cache(embedding=torch.full((10, 4), -1.0), weight=weight, labels=torch.zeros(10, dtype=int))
    )  # type: ignore[call-overload]
    assert lost.kappa.low_edge + lost.kappa.high_edge == 1.0
    assert any("100% of the samples lie at the" in warning for warning in lost.warnings)
    cache = make_cache(50)
    foreign = dataclasses.replace(cache, info=dataclasses.replace(cache.info, label_names=("a", "b", "c")))
    scan = scan_features(foreign)
    assert scan.accuracy is None
    assert any("labels are not the model's classes" in warning for warning in scan.warnings)


def test_as_many_classes_as_dimensions_leave_no_angle_to_the_span() -> None:
    scan = scan_features(make_cache(50, dim=4, num_classes=9))
    assert scan.diversity.mean_span_angle_deg is None
