"""Corrections of a long-tailed model, from its feature cache."""

import dataclasses
import json

import pytest
import torch

from cosify.evaluation import Assessment, assess, group_accuracies, tables_of
from cosify.evaluation.corrections import is_uneven
from cosify.evaluation.json_records import from_json
from tests.evaluation.caches import make_cache

COUNTS = torch.tensor([400, 90, 30, 5])


@pytest.mark.parametrize("kappa", [6.0, None])
def test_corrections_equal_loops(kappa: float | None) -> None:
    cache = make_cache(300, kappa=kappa, bias=kappa is None, spread=2.0)
    found = group_accuracies(cache, COUNTS)
    assert set(found) == {"none", "logits adjusted", *(() if kappa else ("tau = 1",))}
    weight, embedding = cache.weight.double(), torch.from_numpy(cache.embedding).double()
    unit = weight / weight.norm(dim=1, keepdim=True)
    logits = embedding @ weight.T + (0 if cache.bias is None else cache.bias.double())
    if kappa:
        logits = kappa * (embedding / embedding.norm(dim=1, keepdim=True)) @ unit.T
    expected = {"none": logits, "logits adjusted": logits - (COUNTS / COUNTS.sum()).double().log()}
    expected["tau = 1"] = embedding @ unit.T
    for name, groups in found.items():
        right = expected[name].argmax(dim=1).numpy() == cache.labels
        by_class = [right[cache.labels == label].mean() for label in range(4)]
        assert groups.accuracy == pytest.approx(right.mean())
        shares = (by_class[0], (by_class[1] + by_class[2]) / 2, by_class[3])
        assert (groups.many, groups.medium, groups.few) == pytest.approx(shares)
        assert groups.num_classes == (1, 2, 1)
    few = {name: groups.few for name, groups in found.items()}
    assert few["logits adjusted"] > few["none"], "the case does not show what the correction does"


def test_an_assessment_keeps_them_through_json_and_shows_them() -> None:
    cache = make_cache(100, spread=2.0)
    found = assess("model", cache, train_counts=torch.tensor([400, 300, 200, 5]), resamples=100)
    (table,) = [table for table in tables_of([found]) if "Table 7" in table.title]
    assert [row[:2] for row in table.rows] == [("model", "none"), ("model", "logits adjusted")]
    assert table.rows[0][5] == "no such class"  # medium
    assert "3, 0 and 1 classes" in table.note
    record = json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))
    assert from_json(Assessment, record).long_tail == found.long_tail
    del record["long_tail"]  # as earlier versions wrote it
    assert from_json(Assessment, record).long_tail is None


def test_even_classes_have_no_such_table() -> None:
    cache = make_cache(100, spread=2.0)
    for counts in (None, torch.tensor([10, 11, 12, 19])):
        found = assess("model", cache, train_counts=counts, resamples=100)
        assert found.long_tail is None
        assert all("Table 7" not in table.title for table in tables_of([found]))
    assert is_uneven(torch.tensor([10, 20]))


def test_a_class_without_training_images_has_no_adjustment() -> None:
    assert set(group_accuracies(make_cache(100), torch.tensor([400, 0, 30, 5]))) == {"none"}
