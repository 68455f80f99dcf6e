"""Transfer from a cache: its protocol, and answers that are known."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from cosify.data import held_out_mask
from cosify.evaluation import knn_top1, linear_probe, transfer
from tests.evaluation.caches import make_cache

FEW = (10.0, 0.1)


def test_it_is_the_probe_on_a_fifth_of_each_class() -> None:
    cache = make_cache(400, num_classes=5)
    found = transfer(cache, seed=3, lambdas=FEW)
    features, labels = torch.from_numpy(cache.embedding), torch.from_numpy(cache.labels)
    test = held_out_mask(labels, 0.2, 3)
    assert found.probe == linear_probe(
        features[~test], labels[~test], features[test], labels[test], num_classes=5, seed=4, lambdas=FEW
    )
    for label in range(5):
        assert abs(int(test[labels == label].sum()) - 0.2 * int((labels == label).sum())) < 1
    top1 = found.probe.top1
    assert found.standard_error == pytest.approx((top1 * (1 - top1) / found.probe.num_test) ** 0.5)
    assert f"({found.probe.num_test} of 400 images, seed 3)" in found.protocol


def test_classes_that_do_not_occur_change_nothing() -> None:
    labels = torch.randint(3, (200,), generator=torch.Generator().manual_seed(0))
    some = make_cache(labels=labels, num_samples=200)
    gaps = make_cache(labels=labels, num_samples=200, predictions=labels)
    gaps.labels[:] = np.array([2, 40, 900])[some.labels]
    assert transfer(some, lambdas=FEW) == transfer(gaps, lambdas=FEW)


def test_neighbours_vote_by_cosine() -> None:
    train, test = make_cache(120, seed=1), make_cache(80, seed=2)
    arguments = [torch.from_numpy(each) for cache in (train, test) for each in (cache.embedding, cache.labels)]
    by_cosine = KNeighborsClassifier(5, metric="cosine", algorithm="brute").fit(train.embedding, train.labels)
    assert knn_top1(*arguments) == by_cosine.score(test.embedding, test.labels)
    stretched = [arguments[0] * 9, arguments[1], arguments[2] * torch.rand(80, 1).add(0.1), arguments[3]]
    assert knn_top1(*stretched) == knn_top1(*arguments)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="has 3 images of 3 classes, expected at least 20"):
        transfer(make_cache(3, labels=torch.tensor([0, 1, 2])))


def test_classes_of_one_sample_train_and_are_not_asked_for() -> None:
    labels = torch.cat([torch.arange(20).repeat_interleave(10), torch.arange(20, 50)])
    cache = make_cache(num_classes=50, dim=50, labels=labels, embedding=torch.eye(50)[labels])
    found = transfer(cache, lambdas=FEW)
    assert (found.probe.top1, found.knn_top1) == (1.0, 1.0)
    assert found.probe.num_test == 40


@pytest.mark.parametrize("seed", range(3))
def test_a_small_set_does_not_end_on_its_majority(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Of a hundred images the first lambdas leave the most frequent class, and as many right on the held-out ones."""
    cache = make_cache(100, dim=64, num_classes=10, seed=seed)
    found = transfer(cache)
    assert len(found.probe.lambdas) == 45
    assert len(set(found.probe.validation_top1[:3])) == 1, "a plateau"
    assert found.probe.top1 >= 0.9
    assert found.knn_top1 >= 0.9
    assert "far below" not in caplog.text


def test_a_probe_far_below_the_neighbours_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    found = transfer(make_cache(400, dim=64, num_classes=10), lambdas=(1e9,))
    assert found.probe.top1 < 0.3
    assert found.knn_top1 > 0.9
    assert f"the linear probe has {100 * found.probe.top1:.1f} %, far below the" in caplog.text
