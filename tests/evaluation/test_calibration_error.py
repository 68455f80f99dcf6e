"""Calibration against plain loops, torchmetrics and scikit-learn, and on data drawn from a known softmax."""

import math
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from cosify.evaluation import calibration_error as module
from cosify.evaluation.calibration_error import (
    Calibration,
    calibration,
    fit_kappa,
    kappa_calibrations,
    reliability_bins,
    temperature_calibrations,
)
from cosify.functional import cosine, kappa_grid, ls_kappa


def logits_and_labels(num: int = 200, num_classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num, num_classes, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial((0.6 * logits).softmax(dim=1), 1, generator=generator).squeeze(1)


def head(kappa: float, num: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, labels drawn from softmax(kappa cos), and a weight that is the same for every seed."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(10, 16, generator=torch.Generator().manual_seed(99))
    embedding = torch.randn(num, 16, generator=generator)
    labels = torch.multinomial((kappa * cosine(embedding, weight)).softmax(dim=1), 1, generator=generator).squeeze(1)
    return embedding, labels, weight


def blocks(logits: Tensor, size: int = 64) -> Callable[[], Iterator[Tensor]]:
    return lambda: iter(logits.split(size))


def probabilities(logits: list[float], kappa: float) -> list[float]:
    top = max(logits)
    powers = [math.exp(kappa * (z - top)) for z in logits]
    return [power / sum(powers) for power in powers]


def oracle(logits: Tensor, labels: Tensor, kappa: list[float], num_bins: int) -> dict[str, float]:
    """Plain loops, from the definitions; no two confidences are equal."""
    num = len(labels)
    rows = list(zip(logits.tolist(), labels.tolist(), kappa, strict=True))
    nll = brier = 0.0
    pairs: list[tuple[float, bool]] = []
    for z, y, k in rows:
        p = probabilities(z, k)
        nll -= math.log(p[y]) / num
        brier += sum((q - (c == y)) ** 2 for c, q in enumerate(p)) / num
        pairs.append((max(p), z.index(max(z)) == y))
    ece = 0.0
    for low in range(num_bins):
        inside = [(p, hit) for p, hit in pairs if low / num_bins <= p < (low + 1) / num_bins]
        ece += abs(sum(p - hit for p, hit in inside)) / num
    pairs.sort()
    sizes = [num // num_bins + (each < num % num_bins) for each in range(num_bins)]
    adaptive, start = 0.0, 0
    for size in sizes:
        adaptive += abs(sum(p - hit for p, hit in pairs[start : start + size])) / num
        start += size
    return {
        "ece": ece,
        "adaptive_ece": adaptive,
        "nll": nll,
        "brier": brier,
        "accuracy": sum(hit for _, hit in pairs) / num,
        "mean_confidence": sum(p for p, _ in pairs) / num,
        "kappa": sum(kappa) / num,
        "num_samples": num,
    }


@pytest.mark.parametrize("num_bins", [1, 7, 15])
@pytest.mark.parametrize("per_sample", [False, True])
def test_equals_plain_loops(per_sample: bool, num_bins: int) -> None:
    logits, labels = logits_and_labels()
    kappa = torch.linspace(0.2, 3, 200, dtype=torch.float64) if per_sample else 1.3
    found = calibration(blocks(logits)(), labels, kappa=kappa, num_bins=num_bins)
    kappas = kappa.tolist() if isinstance(kappa, Tensor) else [kappa] * 200
    assert vars(found) == pytest.approx(oracle(logits, labels, kappas, num_bins), rel=1e-9)


@pytest.mark.parametrize("kappa", [0.3, 1.0, 4.0])
def test_equals_torchmetrics_and_sklearn(kappa: float) -> None:
    logits, labels = logits_and_labels(num=500, num_classes=7)
    found = calibration(blocks(logits)(), labels, kappa=kappa)
    p = (kappa * logits).softmax(dim=1)
    ece = multiclass_calibration_error(p, labels, num_classes=7, n_bins=15, norm="l1")
    assert found.ece == pytest.approx(float(ece), rel=2e-6)  # theirs is taken in float32
    assert found.nll == pytest.approx(log_loss(labels, p.numpy(), labels=range(7)), rel=1e-9)
    squares = ((p - torch.nn.functional.one_hot(labels, 7)) ** 2).sum(dim=1).mean()
    assert found.brier == pytest.approx(float(squares), rel=1e-12)
    unscaled = brier_score_loss(labels.numpy(), p.numpy(), labels=range(7), scale_by_half=False)
    assert found.brier == pytest.approx(unscaled, rel=1e-9)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_bins_are_those_of_torchmetrics(num_bins: int) -> None:
    generator = torch.Generator().manual_seed(num_bins)
    # Edges, 0 and 1 are among them.
    confidence = torch.cat([torch.rand(300, generator=generator).double().sqrt(), torch.linspace(0, 1, num_bins + 1)])
    confidence[-5:] = 1
    hit = torch.rand(len(confidence), generator=generator) < confidence**2
    bins = reliability_bins(confidence, hit, num_bins)
    assert bins.ece == float(binary_calibration_error(confidence, hit.long(), n_bins=num_bins, norm="l1"))
    assert bins.counts[-1] == (confidence == 1).sum() >= 5
    inside = (confidence >= 1 - 1 / num_bins) & (confidence < 1)
    assert bins.counts[-2] == inside.sum()
    assert float(bins.accuracy[-2]) == pytest.approx(float(hit[inside].double().mean()))
    assert float(bins.confidence[-2]) == pytest.approx(float(confidence[inside].mean()))


def test_known_bins() -> None:
    bins = reliability_bins(torch.tensor([0.5, 0.5, 1.0, 1.0]), torch.tensor([True, False, True, False]), 2)
    assert bins.counts.tolist() == [0, 2, 2]  # 0.5 belongs to the upper bin, 1 to one of its own
    assert bins.accuracy[1:].tolist() == [0.5, 0.5]
    assert bins.confidence[1:].tolist() == [0.5, 1.0]
    assert bins.accuracy[0].isnan()  # an empty bin has no accuracy, and no part in the error
    assert bins.ece == pytest.approx(0.25)
    # float32's softmax exceeds 1 by rounding.
    assert reliability_bins(torch.tensor([1 + 2e-7]), torch.tensor([True])).counts[-1] == 1


def test_known_answers() -> None:
    # Two classes, odds 3: confidence 3/4 everywhere, of eight samples six right.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]], dtype=torch.float64).repeat(4, 1)
    right = torch.tensor([0, 1] * 4)
    labels = torch.where(torch.arange(8) < 2, 1 - right, right)
    found = calibration([logits], labels)
    assert (found.ece, found.adaptive_ece) == pytest.approx((0, 0), abs=1e-12)
    assert found.nll == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert found.brier == pytest.approx(0.75 * 2 / 16 + 0.25 * 18 / 16)
    assert (found.accuracy, found.mean_confidence) == (0.75, pytest.approx(0.75))
    sharper = calibration([logits], labels, kappa=2.0)  # odds 9
    assert sharper.ece == pytest.approx(0.9 - 0.75)
    assert sharper.accuracy == 0.75


def test_one_class_is_certain() -> None:
    found = calibration([torch.zeros(3, 1) - 4], torch.zeros(3, dtype=torch.int64))
    assert vars(found) == pytest.approx(
        {
            "ece": 0,
            "adaptive_ece": 0,
            "nll": 0,
            "brier": 0,
            "accuracy": 1,
            "mean_confidence": 1,
            "kappa": 1,
            "num_samples": 3,
        }
    )


def test_log_probabilities_are_logits() -> None:
    logits, labels = logits_and_labels()
    found = calibration([logits.log_softmax(dim=1)], labels)
    assert vars(found) == pytest.approx(vars(calibration([logits], labels)), rel=1e-12)


def test_calibrated_data_have_small_errors() -> None:
    embedding, labels, weight = head(8.0, num=20_000)
    true = calibration([cosine(embedding, weight)], labels, kappa=8.0)
    assert true.ece < 0.012
    assert true.adaptive_ece < 0.015
    assert true.mean_confidence == pytest.approx(true.accuracy, abs=0.01)
    assert calibration([cosine(embedding, weight)], labels, kappa=20.0).ece > 0.15


@pytest.mark.parametrize("size", [1, 7, 199, 200])
def test_blocks_make_no_difference(size: int) -> None:
    logits, labels = logits_and_labels()
    whole = calibration([logits], labels, kappa=2.0)
    assert vars(calibration(blocks(logits, size)(), labels, kappa=2.0)) == pytest.approx(vars(whole), rel=1e-12)


def test_order_makes_no_difference_also_among_equal_confidences() -> None:
    logits, labels = logits_and_labels(num=40)
    logits, labels = logits.repeat(5, 1), labels.repeat(5)
    labels[:60] = (labels[:60] + 1) % 5
    whole = calibration([logits], labels)
    assert whole.adaptive_ece > 0.01
    for seed in range(5):
        order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
        found = calibration([logits[order]], labels[order])
        assert vars(found) == pytest.approx(vars(whole), rel=1e-9)


@pytest.mark.parametrize("kappa", [1e-3, 148.41, 1e4])
def test_extreme_kappa(kappa: float) -> None:
    embedding, labels, weight = head(8.0, num=300)
    z = cosine(embedding, weight)
    found = calibration([z], labels, kappa=kappa)
    expected = []
    for row, label in zip(z.double().tolist(), labels.tolist(), strict=True):
        top = max(row)
        expected.append(math.log(sum(math.exp(kappa * (c - top)) for c in row)) - kappa * (row[label] - top))
    assert found.nll == pytest.approx(sum(expected) / 300, rel=1e-9)
    assert all(math.isfinite(value) for value in vars(found).values())
    assert found.brier <= 2
    if kappa == 1e-3:
        assert found.nll == pytest.approx(math.log(10), rel=1e-3)


def test_predictions_come_before_kappa() -> None:
    # Cosines that round to one product, and equal ones: the first of the largest, whatever kappa.
    near = math.nextafter(0.9, 1)
    cosines = torch.tensor([[0.9, near, 0.1], [0.7, 0.7, 0.7], [0.2, 0.9, 0.9]], dtype=torch.float64)
    labels = torch.tensor([1, 0, 1])
    kappas = [float(k) for k in kappa_grid()] + [3.0, 0.1, 1e-3]
    assert any(k * 0.9 == k * near for k in kappas)  # there the product's own argmax would be class 0
    assert {calibration([cosines], labels, kappa=k).accuracy for k in kappas} == {1.0}
    assert {calibration([cosines], torch.tensor([1, 1, 2]), kappa=k).accuracy for k in kappas} == {1 / 3}


def nll(cosines: Tensor, labels: Tensor, kappa: float) -> float:
    return float(torch.nn.functional.cross_entropy(kappa * cosines.double(), labels))


@pytest.mark.parametrize("kappa", [0.5, 12.0, 148.0])
def test_fitted_kappa_is_the_true_one_and_the_best(kappa: float) -> None:
    embedding, labels, weight = head(kappa, num=20_000)
    z = cosine(embedding, weight)
    fitted = fit_kappa(blocks(z, 6000), labels)
    # Three standard errors, from the Fisher information.
    p = (kappa * z.double()).softmax(dim=1)
    information = float(((p * z**2).sum(dim=1) - (p * z).sum(dim=1) ** 2).sum())
    assert abs(fitted - kappa) < 3 / math.sqrt(information)
    best = nll(z, labels, fitted)
    for factor in (0.99, 0.999, 1.001, 1.01):
        assert nll(z, labels, factor * fitted) > best
    free = torch.tensor(fitted, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(free * z.double(), labels).backward()
    assert free.grad is not None
    assert float(free.grad) * fitted == pytest.approx(0, abs=1e-9)


def test_temperature_is_the_inverse() -> None:
    logits, labels = logits_and_labels(num=20_000)
    assert 1 / fit_kappa(blocks(logits), labels) == pytest.approx(1 / 0.6, rel=0.03)
    assert fit_kappa(blocks(10 * logits), labels) == pytest.approx(fit_kappa(blocks(logits), labels) / 10)


def test_fitted_kappa_of_a_near_separable_set() -> None:
    # Of 1000 samples one is wrong, by a small gap: the slope is nearly flat over most of the way.
    logits = torch.tensor([[0.5, 0.0]]).double().repeat(1000, 1)
    logits[0] = torch.tensor([-0.01, 0.0])
    kappa = fit_kappa(blocks(logits, 1000), torch.zeros(1000, dtype=torch.int64))
    slope = 0.01 / (1 + math.exp(-0.01 * kappa)) - 999 * 0.5 / (1 + math.exp(0.5 * kappa))
    assert slope == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize(("shift", "end"), [(0, 1e4), (1, 1e-3)])
def test_no_minimum_gives_the_end_and_a_warning(shift: int, end: float) -> None:
    z = torch.eye(4).double() * 0.5
    labels = (torch.arange(4) + shift) % 4  # all right, or all wrong
    with pytest.warns(UserWarning, match=re.escape(f"NLL is least at kappa = {end} or beyond")):
        assert fit_kappa(blocks(z), labels) == end


def kappa_rows(**settings: object) -> dict[str, Calibration]:
    embedding, labels, weight = head(12.0, num=3000)
    other, other_labels, _ = head(12.0, num=3000, seed=1)
    arguments = {"running_kappa": 5.0, "fit": (other, other_labels), **settings}
    return kappa_calibrations(embedding, labels, weight, **arguments)  # type: ignore[arg-type]


def test_kappas_of_a_cosine_head(monkeypatch: pytest.MonkeyPatch) -> None:
    found = kappa_rows()
    assert list(found) == ["running", "sample", "fitted"]
    embedding, labels, weight = head(12.0, num=3000)
    z = cosine(embedding, weight)
    assert found["running"] == calibration([z], labels, kappa=5.0)
    assert found["sample"] == calibration([z], labels, kappa=ls_kappa(embedding, weight))
    assert found["fitted"].kappa == pytest.approx(12, rel=0.05)
    assert found["fitted"].nll < min(found["running"].nll, found["sample"].nll)
    assert found["fitted"].ece < found["running"].ece
    assert len({row.accuracy for row in found.values()}) == 1  # bit by bit
    assert list(kappa_rows(fit=None)) == ["running", "sample"]
    assert kappa_rows(fit=None, is_calibrated=True)["calibrated"] == found["running"]
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 1000)
    for name, row in kappa_rows().items():
        assert vars(row) == pytest.approx(vars(found[name]), rel=1e-6)


def test_kappas_do_not_depend_on_norms(tmp_path: Path) -> None:
    embedding, labels, weight = (values[:400] for values in head(12.0, num=400))
    expected = kappa_calibrations(embedding, labels, weight, running_kappa=5.0, fit=(embedding, labels))
    factor = torch.tensor([0.5, 4.0]).repeat(200).unsqueeze(1)  # powers of two: no rounding
    np.save(tmp_path / "rows.npy", (embedding * factor).numpy())
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    found = kappa_calibrations(rows, labels.numpy(), 2 * weight, running_kappa=5.0, fit=(rows, labels))
    assert found == expected


def test_ties_do_not_part_the_accuracies() -> None:
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    embedding = torch.tensor([[1.0, 0.2], [0.3, 1.0], [1.0, 1.0], [0.0, 0.0], [2.0, -1.0]]).repeat(4, 1)
    labels = torch.tensor([0, 2, 0, 0, 1, 2, 2, 2, 1, 0]).repeat(2)
    found = kappa_calibrations(embedding, labels, weight, running_kappa=7.3, fit=(embedding, labels))
    assert [row.accuracy for row in found.values()] == [
        float((cosine(embedding, weight).argmax(1) == labels).double().mean())
    ] * 3


def test_temperature_scaling_of_a_stock_head() -> None:
    logits, labels = logits_and_labels(num=4000)
    other = logits_and_labels(num=4000, seed=1)
    found = temperature_calibrations(blocks(logits), labels, fit=(blocks(other[0]), other[1]))
    assert list(found) == ["uncalibrated", "temperature"]
    assert found["uncalibrated"] == calibration(blocks(logits)(), labels)
    assert found["temperature"].kappa == fit_kappa(blocks(other[0]), other[1])
    assert found["temperature"].nll < found["uncalibrated"].nll
    assert found["temperature"].ece < 0.5 * found["uncalibrated"].ece
    assert found["temperature"].accuracy == found["uncalibrated"].accuracy


def test_arguments_stay_as_they_are_and_no_gradient_is_needed() -> None:
    embedding, labels, weight = head(12.0, num=200)
    copies = embedding.clone(), weight.clone()
    weight.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kappa_calibrations(embedding, labels, weight, running_kappa=5.0, fit=(embedding, labels))
        logits = cosine(embedding, weight)
        calibration([logits], labels, kappa=torch.full((200,), 3.0, requires_grad=True))
    assert torch.equal(embedding, copies[0])
    assert torch.equal(weight.detach(), copies[1])


def test_errors_of_logits() -> None:
    logits, labels = logits_and_labels(num=20)
    broken = logits.clone()
    broken[13, 1] = torch.nan
    cases: list[tuple[list[Tensor], Tensor, type[Exception], str]] = [
        ([], labels[:0], ValueError, "0 logits came with 0 labels, expected as many, not 0"),
        ([logits[:12]], labels, ValueError, "12 logits came with 20 labels, expected as many"),
        ([logits, logits], labels, ValueError, "logits of shape [20, 5] came after 20 of 20 samples, expected [b, C]"),
        ([logits[:, 0]], labels, ValueError, "logits of shape [20] came after 0 of 20 samples, expected [b, C]"),
        ([logits[:10], broken[10:]], labels, ValueError, "logits of samples 10 to 19 hold NaN or infinity"),
        ([logits / 0], labels, ValueError, "logits of samples 0 to 19 hold NaN or infinity"),
        ([logits], labels.unsqueeze(1), ValueError, "labels have shape [20, 1], expected [20]"),
        ([logits], labels + 1, ValueError, "expected 0 to 4 for 5 classes"),
        ([logits], labels - 1, ValueError, "found -1 to"),
        ([logits], labels.float(), TypeError, "labels are torch.float32, expected integer class indices"),
    ]
    for rows, targets, error, text in cases:
        with pytest.raises(error, match=re.escape(text)):
            calibration(rows, targets)
        with pytest.raises(error, match=re.escape(text)):
            fit_kappa(lambda rows=rows: rows, targets)  # type: ignore[misc]
    with pytest.raises(ValueError, match="rows of logits are >= 0 and sum to 1, expected logits"):
        calibration([logits.softmax(dim=1)], labels)
    with pytest.raises(ValueError, match="kappa has shape \\[7\\], expected \\[20\\]"):
        calibration([logits], labels, kappa=torch.ones(7))
    for kappa in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"kappa is {kappa}, expected a finite number above 0"):
            calibration([logits], labels, kappa=kappa)
    with pytest.raises(ValueError, match="num_bins is 0, expected at least 1"):
        calibration([logits], labels, num_bins=0)


def test_errors_of_a_cosine_head() -> None:
    embedding, labels, weight = head(12.0, num=20)
    with pytest.raises(ValueError, match="0 logits came with 0 labels"):
        kappa_calibrations(embedding[:0], labels[:0], weight, running_kappa=5.0)
    with pytest.raises(ValueError, match="20 logits came with 21 labels"):
        kappa_calibrations(embedding, torch.zeros(21, dtype=torch.int64), weight, running_kappa=5.0)
    with pytest.raises(ValueError, match="after 0 of 19 samples"):
        kappa_calibrations(embedding, labels[1:], weight, running_kappa=5.0)
    with pytest.raises(ValueError, match="embedding has dimension 9 and weight 16"):
        kappa_calibrations(embedding[:, :9], labels, weight, running_kappa=5.0)
    with pytest.raises(ValueError, match="embedding holds NaN or infinity in 20 of 20 rows"):
        kappa_calibrations(embedding / 0, labels, weight, running_kappa=5.0)
    with pytest.raises(ValueError, match="found 10 to 10, expected 0 to 9 for 10 classes"):
        kappa_calibrations(embedding, labels * 0 + 10, weight, running_kappa=5.0)
    with pytest.raises(ValueError, match="kappa is 0, expected a finite number above 0"):
        kappa_calibrations(embedding, labels, weight, running_kappa=0)
    fit = embedding, torch.zeros(21, dtype=torch.int64)
    with pytest.raises(ValueError, match="20 logits came with 21 labels"):
        kappa_calibrations(embedding, labels, weight, running_kappa=5.0, fit=fit)
