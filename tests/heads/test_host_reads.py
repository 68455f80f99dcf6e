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
    # Walk, bounds, projections, and the comparison in float64; random classes are walked to.
    assert {name: count for name, count in searches.items() if count > (6 if "random" in name else 4)} == {}
    assert len(searches) == 4
    # ML is computed in float64, on the CPU where the device has none.
    assert looks.pop("head, ml") == looks.pop("loss, ml") == 4
    assert looks == dict.fromkeys(looks, 0)
    assert {"head, 20.0", "loss, 20.0", "head, ls", "loss, ls", "head, trainable", "watch"} <= looks.keys()
