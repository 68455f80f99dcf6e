"""`.bin` files of insightface: what they hold comes out, and what they name is not run."""

import io
import os
import pickle
import pickletools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cosify.data import read_insightface_bin


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


PICTURES = [encoded(number) for number in range(4)]


def written(folder: Path, content: Any, protocol: int = 4) -> Path:
    file = folder / "pairs.bin"
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    return file


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["bytes", "rows", "columns"])
def test_pictures_and_flags_come_out(kind: str, protocol: int, tmp_path: Path) -> None:
    pictures: list[Any] = PICTURES
    if kind != "bytes":  # what OpenCV's imencode gives, of old versions as a column
        pictures = [np.frombuffer(each, np.uint8).reshape((-1, 1) if kind == "columns" else -1) for each in PICTURES]
    found = read_insightface_bin(written(tmp_path, (pictures, [True, False]), protocol))
    assert found.images == tuple(PICTURES)
    assert found.same.tolist() == [True, False]
    assert found.same.dtype == bool


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_flags_of_numpy(protocol: int, tmp_path: Path) -> None:
    for flags in ([np.True_, np.False_], np.array([True, False]), [1, 0], np.array([1, 0])):
        found = read_insightface_bin(written(tmp_path, (PICTURES, flags), protocol))
        assert found.same.tolist() == [True, False]


def test_a_file_of_python_2(tmp_path: Path) -> None:
    """Its text is bytes: protocol 2 with the opcodes that only Python 2 wrote."""
    picture = b"U" + bytes([3]) + b"\xff\xd8\xff"  # SHORT_BINSTRING
    (tmp_path / "old.bin").write_bytes(b"\x80\x02]q\x01(" + picture * 2 + b"e]q\x02\x88a\x86.")
    assert "SHORT_BINSTRING" in {code.name for code, _, _ in pickletools.genops((tmp_path / "old.bin").read_bytes())}
    found = read_insightface_bin(tmp_path / "old.bin")
    assert (found.images, found.same.tolist()) == ((b"\xff\xd8\xff",) * 2, [True])


class Calls:
    """What a pickle calls when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.mkdir, ("made",)),
        (eval, ("__import__('os').mkdir('made')",)),
        (np.load, ("pairs.bin",)),
        (np.fromfile, ("pairs.bin",)),
        (np.ndarray, ((1 << 40,),)),
        (bytearray, (1 << 40,)),
        (getattr, (Path, "home")),
    ],
)
def test_hostile_files_run_nothing(
    function: Any, arguments: Any, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, (PICTURES, [True, Calls(function, *arguments)]), protocol)
    with pytest.raises(ValueError, match=r"cannot be read \(.*\), expected a .bin file of insightface; nothing of"):
        read_insightface_bin(file)
    assert not (tmp_path / "made").exists()


RECONSTRUCT: Any = np.zeros(1).__reduce__()[0]


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (RECONSTRUCT, (np.ndarray, (1 << 40,), b"b"), "one of a size that no data follow"),
        (RECONSTRUCT, (os.mkdir, (0,), b"b"), r"it names (posix|nt|os)\.mkdir"),
        (np.dtype, ("O", False, True), "it holds an array of O, expected bytes"),
        (np.dtype, ("M8[s]", False, True), "it holds an array of M8"),
        (pickle.codecs.encode, ("x", "bz2"), "it encodes text as 'bz2', expected latin1"),  # type: ignore[attr-defined]
    ],
)
def test_what_an_array_needs_makes_nothing_else(function: Any, arguments: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_insightface_bin(written(tmp_path, (PICTURES, [True, Calls(function, *arguments)])))


def test_builtin_types_of_numbers_are_not_changed(tmp_path: Path) -> None:
    state = (3, ">", None, None, None, -1, -1, 0)

    class Changed:
        def __reduce__(self) -> Any:
            return np.dtype, ("i8", False, False), state

    with pytest.raises(ValueError, match="flag 1"):
        read_insightface_bin(written(tmp_path, (PICTURES, [True, Changed()])))
    assert np.dtype("i8").byteorder == "="


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (3, r"holds int, expected two lists: pictures, and flags of pairs"),
        ((PICTURES, [True], []), r"holds tuple, expected two lists"),
        (({*PICTURES}, [True, False]), r"holds tuple, expected two lists"),
        ((PICTURES, [True]), r"holds 4 pictures and 1 flags, expected two pictures a flag"),
        (([], []), r"holds 0 pictures and 0 flags"),
        ((PICTURES, [True, 2]), r"flag 1 of .* is 2, expected true or false"),
        ((PICTURES, [True, "yes"]), r"flag 1 of .* is b?'yes', expected true or false"),
        (([*PICTURES[:3], 7], [True, False]), r"picture 3 of .* is int, expected the bytes of a picture's file"),
        (
            ([*PICTURES[:3], np.zeros((4, 4), np.uint8)], [True, False]),
            r"picture 3 of .* is ndarray, expected the",
        ),
    ],
)
def test_other_content_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_insightface_bin(written(tmp_path, content))


def test_a_file_of_a_few_bytes_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\x80\x04Nr" + (1 << 22).to_bytes(4, "little") + b".")  # memo, entry 4194304
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="holds NoneType"):
            read_insightface_bin(tmp_path / "x.bin")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("damage", [b"", b"\x80\x04", b"not a pickle", b"\x80\x04\x8e" + b"\xff" * 8])
def test_damaged_files(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(damage)
    with pytest.raises(ValueError, match=r"x.bin cannot be read \("):
        read_insightface_bin(tmp_path / "x.bin")
