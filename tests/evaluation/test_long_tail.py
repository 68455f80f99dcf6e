import math

import numpy as np
import pytest
import torch

from cosify.evaluation import adjust_logits, long_tail_accuracy

COUNTS = torch.tensor([500, 101, 100, 20, 19, 1])


def loop(predictions: list[int], labels: list[int], counts: list[int], group: list[int]) -> float:
    """Return the mean accuracy of the classes in `group`, each over its own test images."""
    accuracies = []
    for label in group:
        rows = [row for row, each in enumerate(labels) if each == label]
        if rows:
            accuracies.append(sum(predictions[row] == label for row in rows) / len(rows))
    return sum(accuracies) / len(accuracies) if accuracies else math.nan


@pytest.mark.parametrize(
    ("thresholds", "groups"), [("kang", ([0, 1], [2, 3], [4, 5])), ("oltr", ([0, 1, 2], [], [3, 4, 5]))]
)
def test_groups_equal_loops(thresholds: str, groups: tuple[list[int], ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(6, (90,), generator=generator)
    predictions = torch.where(torch.rand(90, generator=generator) < 0.5, labels, (labels + 1) % 6)
    found = long_tail_accuracy(predictions, labels, COUNTS, thresholds=thresholds)  # type: ignore[arg-type]
    expected = [loop(predictions.tolist(), labels.tolist(), COUNTS.tolist(), group) for group in groups]
    np.testing.assert_allclose([found.many, found.medium, found.few], expected, rtol=1e-12)
    assert found.num_classes == tuple(len(group) for group in groups)
    assert found.accuracy == pytest.approx(float((predictions == labels).double().mean()), abs=1e-12)
    everything = loop(predictions.tolist(), labels.tolist(), COUNTS.tolist(), list(range(6)))
    assert found.mean_per_class == pytest.approx(everything, abs=1e-12)


def test_an_empty_group_is_nan_and_is_said_so() -> None:
    found = long_tail_accuracy(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([200, 200]))
    assert math.isnan(found.medium)
    assert math.isnan(found.few)
    assert (found.many, found.num_classes) == (0.5, (1, 0, 0))  # class 1 has no test image
    assert math.isnan(found.by_class[1])
    assert "medium none of 0 classes" in repr(found)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([0], [0, 1], r"predictions have shape \[1\] and labels \[2\]"),
        ([], [], "at least one"),
        ([0], [6], "labels go from 6 to 6 with 6 training counts"),
        ([0], [-1], "labels go from -1 to -1"),
    ],
)
def test_bad_input(predictions: list[int], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        long_tail_accuracy(torch.tensor(predictions).long(), torch.tensor(labels).long(), COUNTS)


def test_adjusted_logits_give_the_posterior_of_a_balanced_set() -> None:
    """Bayes: a classifier that is right under the training prior is right under a flat one after the adjustment."""
    likelihood = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], dtype=torch.float64)
    counts = torch.tensor([90, 9, 1])
    skewed = (likelihood * counts / 100).log()
    posterior = adjust_logits(skewed, counts).softmax(dim=1)
    torch.testing.assert_close(posterior, likelihood / likelihood.sum(dim=1, keepdim=True), rtol=1e-12, atol=0)
    torch.testing.assert_close(adjust_logits(skewed, counts, 0.0), skewed, rtol=0, atol=0)


def test_a_class_without_training_images_has_no_prior() -> None:
    with pytest.raises(ValueError, match=r"1 of 3 classes have no training images, such as \[1\]"):
        adjust_logits(torch.zeros(2, 3), torch.tensor([5, 0, 1]))
