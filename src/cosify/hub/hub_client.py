"""Time limits for the hub: huggingface_hub sets none for most requests, and sleeps as long as a server asks."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import get_session

from cosify.errors import InputError
from cosify.integrations import compat
from cosify.wrapping import wrap_once

CONNECT = 10.0  # seconds
ANSWER = 60.0  # seconds without a byte; HF_HUB_DOWNLOAD_TIMEOUT, where it is set, takes its place
TRIES = 3  # in a row without an answer
LONGEST_WAIT = 300  # seconds; the hub's own rate limits count for five minutes
SAID = 600  # characters of an error that a message repeats


class HubError(InputError, OSError):
    """The hub cannot be reached, refuses, or asks for a wait of more than five minutes."""


_lock = threading.Lock()
_tries = threading.local()  # the client of huggingface_hub retries within a thread
_active = 0


@contextmanager
def impatient() -> Iterator[None]:
    """Give up requests of huggingface_hub inside that get no answer, or are told to wait for long.

    A request waits for 60 s, or HF_HUB_DOWNLOAD_TIMEOUT, and is tried three times.  Outside nothing changes.

    Raises:
        HubError: from the request.
    """
    global _active
    _watch_clients()
    _tries.number = 0
    with _lock:
        _active += 1
    try:
        yield
    finally:
        with _lock:
            _active -= 1


def in_short(error: BaseException) -> str:
    """Return type and message of an error, and of its cause, on one line."""
    said = " ".join(f"{type(error).__name__}: {error}".split())[:SAID]
    cause = error.__cause__
    return said if cause is None or str(cause) in str(error) else f"{said} {in_short(cause)}"[: 2 * SAID]


def _watch_clients() -> None:
    """Put our hooks into the shared client of huggingface_hub, and into those that it makes after errors."""
    found = compat.find(compat.CLIENT_FACTORY)
    with _lock:
        if found is not None and getattr(*found) is not None:
            # Not set_client_factory, which would close the client under other threads.
            wrap_once(*found, lambda factory: _watch(factory()))
        _watch(get_session())


def _watch(client: Any) -> Any:
    hooks = client.event_hooks
    if _before not in hooks["request"]:
        client.event_hooks = {"request": [*hooks["request"], _before], "response": [*hooks["response"], _after]}
    return client


def _before(request: Any) -> None:
    if _active == 0:
        return
    _tries.number = getattr(_tries, "number", 0) + 1
    if _tries.number > TRIES:
        _tries.number = 0
        raise HubError(f"{request.url.host} has not answered {TRIES} times; check the connection and try again")
    answer = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or ANSWER)
    allowed = {"connect": CONNECT, "read": answer, "write": answer, "pool": answer}
    asked = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {
        name: limit if asked.get(name) is None else min(limit, asked[name]) for name, limit in allowed.items()
    }


def _after(response: Any) -> None:
    if _active == 0:
        return
    _tries.number = 0
    seconds = _asked_to_wait(response)
    if seconds > LONGEST_WAIT:
        raise HubError(
            f"{response.url.host} answers {response.status_code} and asks to wait for {seconds} s; try again then"
        )


def _asked_to_wait(response: Any) -> int:
    if response.status_code < 400:
        return 0
    asked = response.headers.get("retry-after", "").strip()
    limits = re.search(r";\s*t=(\d+)", response.headers.get("ratelimit", ""))
    return max(int(asked) if asked.isdecimal() else 0, int(limits[1]) if limits else 0)
