"""Whatever stands in a folder, `cosify.load` opens it or says in one sentence what is wrong, soon."""

import copy
import json
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import cosify
from cosify.errors import InputError

SECONDS = 10  # for one folder on a busy machine; most take a tenth of one
NUMBERS = (0, -1, 1, 3, 100_000, 10**9, 10**30, 1e308, 0.5, float("nan"), float("inf"), -float("inf"))
VALUES = (*NUMBERS, None, True, "", "x", "../..", "\0", "é" * 300, [], [[]], [1] * 50, {}, {"a": 1}, {"type": "cos"})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", head="cos", num_classes=5)
    model(torch.randn(2, *model.pretrained_cfg["input_size"]))
    return cosify.save(model, tmp_path_factory.mktemp("saved"), label_names=list("abcde"))


def mutated(config: Any, rng: random.Random) -> Any:
    """Return a copy in which one value, anywhere, is replaced, dropped or added."""
    config = copy.deepcopy(config)
    places: list[tuple[Any, Any]] = list(_places(config))
    holder, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.15:
        del holder[key]
    elif kind < 0.25 and isinstance(holder, dict):
        holder[rng.choice(["depth", "embed_dim", "img_size", "global_pool", "x", "head", "auto_map"])] = _value(rng)
    else:
        holder[key] = _value(rng)
    return config


def _value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(VALUES))


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], (dict, list)):
            yield from _places(holder[key])


def damaged_weights(content: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file whose length, header or end is another."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    kind = rng.randrange(5)
    if kind == 0:
        return content[: rng.randrange(len(content))]
    if kind == 1:
        return struct.pack("<Q", rng.choice([0, 1, length - 1, length + 1, 2**31, 2**63])) + content[8:]
    place = rng.randrange(length)
    header = {
        2: header[:place] + bytes([rng.randrange(256)]) + header[place + 1 :],
        3: b"[" * 10_000 + header,
        4: json.dumps(mutated(json.loads(header), rng)).encode(),
    }[kind]
    return struct.pack("<Q", len(header)) + header + data


def outcome(folder: Path) -> str:
    """Open a folder and return "opened", or what was said; raise for anything but the documented errors."""
    started = time.monotonic()
    try:
        cosify.load(folder)
        said = "opened"
    except InputError as error:
        said = str(error)
        assert str(folder) in said
        assert len(said) < 1500
    assert time.monotonic() - started < SECONDS, said
    return said


def damage(folder: Path, seed: int) -> None:
    """Change one file."""
    rng = random.Random(seed)
    weights, description = folder / "model.safetensors", folder / "config.json"
    if seed % 3 == 0:
        weights.write_bytes(damaged_weights(weights.read_bytes(), rng))
    else:
        description.write_text(json.dumps(mutated(json.loads(description.read_text()), rng)))


@pytest.mark.parametrize("block", [range(8), pytest.param(range(8, 240), marks=pytest.mark.slow)])
def test_random_damage(block: range, folder: Path) -> None:
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    found = []
    for seed in block:
        for path, content in whole.items():
            path.write_bytes(content)
        damage(folder, seed)
        found.append(outcome(folder))
    assert 0.1 < sum(said == "opened" for said in found) / len(found) < 0.9, "damage is to be seen, and not always"


def sized(**arguments: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["model_args"].update(arguments)


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "100,000 layers": (sized(depth=100_000), "describes a network that is many times as large as its weights"),
    "wide": (sized(embed_dim=60_000), "describes a network that is many times as large as its weights"),
    "large images": (sized(img_size=200_000), "describes a network that is many times as large as its weights"),
    "10^9 layers": (sized(depth=10**9), r"depth in .* is 1e\+09, expected no more than its weights have elements"),
    "10^9 classes": (lambda config: config.update(num_classes=10**9), r"num_classes in .* is 1e\+09"),
    "overflow": (lambda config: config["cosify"].update(kappa=10**400), "cannot be loaded|is damaged"),
    "unknown": (lambda config: config.update(architecture="none"), r"cannot be loaded \(RuntimeError: Unknown model"),
    "a list": (lambda config: config.update(architecture=[]), "cannot be loaded"),
    "no format": (lambda config: config["cosify"].pop("format"), "is damaged"),
    "no pretrained_cfg": (lambda config: config.update(pretrained_cfg=None), "cannot be loaded"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_configs(name: str, folder: Path) -> None:
    change, message = HOSTILE[name]
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message) as caught:
        cosify.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"cosify": ' + "1" * 5000 + "}", '{"a":' * 50_000, "null", "\ud800"])
def test_hostile_json(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(InputError, match=r"config.json (is not JSON|holds a)"):
        cosify.load(folder)
