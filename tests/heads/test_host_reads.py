"""A training step does not wait for an accelerator but where the certified search has to."""

import json

import pytest

from tests.processes import run_python


@pytest.mark.slow  # in a process of its own: the stand-in stays registered with torch
def test_how_often_a_step_looks_at_a_value() -> None:
    looks = json.loads(run_python("-m", "tests.heads.host_reads_worker"))
    assert looks.pop("one look") == 1
    assert looks.pop("reading the watch") > 0
    searches = {name: looks.pop(name) for name in list(looks) if "certified" in name}
    # After the first evaluation, and before the comparison in float64; between them walk, bounds and projections.
    limits = {"settled": 2, "few left": 2, "planted": 4, "random": 6}
    assert {name: count for name, count in searches.items() if count > limits[name.split(", ")[-1]]} == {}
    assert len(searches) == 8
    # ML is computed in float64, on the CPU where the device has none.
    assert looks.pop("head, ml") == looks.pop("loss, ml") == 4
    assert looks == dict.fromkeys(looks, 0)
    assert {"head, 20.0", "loss, 20.0", "head, ls", "loss, ls", "head, trainable", "watch"} <= looks.keys()
