"""A hub that says nothing, or asks to wait for a day, is given up; outside of `impatient` nothing changes."""

import time
from collections.abc import Iterator

import pytest
from huggingface_hub import get_session
from huggingface_hub.utils import http_backoff

from cosify.hub.hub_client import HubError, impatient
from tests.loopback_hub import SILENCE, LoopbackHub

# What a hub answers, and what is said of it.
ANSWERS = {
    "silence": (SILENCE, "127.0.0.1 has not answered 3 times"),
    "a day": ((503, {"Retry-After": "86400"}), "127.0.0.1 answers 503 and asks to wait for 86400 s"),
    "a limit": ((429, {"ratelimit": '"api";r=0;t=7200'}), "127.0.0.1 answers 429 and asks to wait for 7200 s"),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.2")
    with LoopbackHub().running() as hub:
        yield hub


@pytest.mark.parametrize("name", ANSWERS)
def test_given_up(name: str, hub: LoopbackHub) -> None:
    answer, message = ANSWERS[name]
    hub.instead = lambda method, path: answer
    started = time.monotonic()
    with pytest.raises(HubError, match=message), impatient():
        http_backoff("GET", f"{hub.url}/api/whoami-v2")
    assert time.monotonic() - started < 5
    assert len(hub.requests) == (3 if name == "silence" else 1)


def test_short_waits_are_kept_to_and_hooks_are_put_in_once(hub: LoopbackHub) -> None:
    answers = iter([(503, {"Retry-After": "20"}), (429, {}), (503, {}), (503, {})])
    hub.instead = lambda method, path: next(answers, None)
    for _ in range(3):
        with impatient():
            assert http_backoff("GET", f"{hub.url}/api/models/ORG/none").status_code == 401
    assert len(hub.requests) == 4 + 3
    assert sum("cosify" in hook.__module__ for hook in get_session().event_hooks["request"]) == 1


def test_outside_nothing_changes(hub: LoopbackHub) -> None:
    with impatient():
        pass
    hub.instead = lambda method, path: (503, {"Retry-After": "86400"})
    assert get_session().get(f"{hub.url}/x").status_code == 503
    request = get_session().build_request("GET", f"{hub.url}/x")
    before = dict(request.extensions)
    get_session().send(request)
    assert request.extensions == before
