"""What is written as JSON comes back as the same objects, or not at all."""

import dataclasses
import json

import pytest
import torch

from cosify.evaluation import Assessment, assess, transfer
from cosify.evaluation.json_records import from_json
from tests.evaluation.caches import make_cache


@pytest.mark.parametrize("kappa", [16.0, None])
def test_an_assessment_comes_back(kappa: float | None) -> None:
    test, train = make_cache(120, seed=1, kappa=kappa), make_cache(120, seed=2, kappa=kappa)
    outliers = make_cache(60, seed=3, kappa=kappa, labels=torch.full((60,), -1))
    tasks = {"task": transfer(train, lambdas=(1.0,))}
    made = assess("m", test, train, ood={"far": outliers}, transfer=tasks, exclude_classes=[1], resamples=100)
    assert from_json(Assessment, json.loads(json.dumps(dataclasses.asdict(made)))) == made


@dataclasses.dataclass(frozen=True)
class Inner:
    count: int
    pair: tuple[int, str]


@dataclasses.dataclass(frozen=True)
class Outer:
    value: float
    inner: Inner | None
    many: tuple[Inner, ...]


GOOD = {"value": 1, "inner": {"count": 2, "pair": [3, "x"]}, "many": []}


def test_nested_objects() -> None:
    assert from_json(Outer, GOOD) == Outer(1, Inner(2, (3, "x")), ())
    assert from_json(Outer, {**GOOD, "inner": None}).inner is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": 1}, r"Outer differs in \['more'\]"),
        ({"inner": {"count": 2}}, r"Outer.inner differs in \['pair'\]"),
        ({"value": "1"}, "Outer.value is '1', expected"),
        ({"inner": {"count": True, "pair": [1, "x"]}}, "Outer.inner.count is True"),
        ({"many": [3]}, r"Outer.many\[0\] differs in int"),
        ({"value": None}, "Outer.value is None"),
    ],
)
def test_what_differs_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(Outer, {**GOOD, **change})
