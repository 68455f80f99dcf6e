"""The Space: what it says is what the model and its rejector say, and a browser shows it."""

import gc
import importlib.util
import itertools
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cosify
from tests.processes import ROOT, environment, python

APP = ROOT / "hub_cards" / "space" / "app.py"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def app() -> Any:
    spec = importlib.util.spec_from_file_location("space_app", APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Gradio 6.31 leaves the picture open
def test_it_says_what_the_rejector_says(app: Any, tmp_path: Path) -> None:
    import gradio as gr  # not above: it takes seconds, in each process that collects tests
    from gradio.data_classes import ImageData

    names = app.models()
    assert names
    for shown, name in app.choices():
        assert shown == f"{name}, {app.opened(name)[0].num_classes} classes"
    clear = Image.effect_noise((40, 40), 60).convert("RGB")
    clear.putalpha(Image.linear_gradient("L").resize((40, 40)))
    deep = Image.fromarray((np.arange(1600).reshape(40, 40) * 40).astype(np.uint16))
    files = [tmp_path / "clear.png", tmp_path / "deep.png"]
    for picture, file in zip((clear, deep), files, strict=True):
        picture.save(file)
    component = gr.Image(type="filepath", image_mode=None)
    for name, file in itertools.product(names, files):
        given = component.preprocess(ImageData(path=str(file), orig_name=file.name))
        said, nearest = app.look(given, name)
        decision = cosify.Rejector.load(name)(file)
        assert decision.name in said
        assert ("Rather no answer" in said) != decision.accept
        assert f"**{decision.score:.2f}**" in said
        cosines = [float(cosine) for _, cosine, _ in nearest]
        assert cosines == sorted(cosines, reverse=True)
        assert len(nearest) == app.NEAREST
        assert nearest[0] == [decision.name, f"{decision.score:.2f}", nearest[0][2]]
    assert app.look(None, names[0]) == ("Give a picture first.", [])
    gc.collect()  # here, not in another test


@pytest.fixture
def address() -> Iterator[str]:
    """Start the page in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    settings = {"GRADIO_SERVER_PORT": port, "GRADIO_ANALYTICS_ENABLED": "False"}
    process = subprocess.Popen([python(), str(APP)], env=environment(**settings))
    try:
        deadline = time.monotonic() + 120
        connected = False
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as trial:
                connected = trial.connect_ex(("127.0.0.1", int(port))) == 0
            if connected:
                break
            time.sleep(0.2)
        assert connected, "the page has not started"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_browser_shows_it(address: str, app: Any) -> None:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here (Debian: apt install chromium)")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000", "--dump-dom")
    page = subprocess.run([CHROMIUM, *flags, address], capture_output=True, text=True, timeout=120, check=True).stdout
    for text in ("a classifier that knows when it is wrong", "Give a picture", "nearest class", *app.models()):
        assert text in page
