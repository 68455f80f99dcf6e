"""Which files of a folder are published."""

import json
from pathlib import Path

import pytest

from cosify.hub.publish import files_to_publish

TENSORS = "rejector-0123456789abcdef.safetensors"


def written(folder: Path, tensors: object) -> Path:
    for name in (TENSORS, "rejector-old.safetensors", "config.json", "notes.txt"):
        (folder / name).write_text("x")
    (folder / "rejector.json").write_text(json.dumps(tensors))
    return folder


def test_the_tensors_of_the_rejector_in_force_go_along(tmp_path: Path) -> None:
    folder = written(tmp_path, {"tensors": TENSORS})
    assert [path.name for path in files_to_publish(folder)] == ["config.json", TENSORS, "rejector.json"]
    (folder / "rejector.json").unlink()
    assert [path.name for path in files_to_publish(folder)] == ["config.json"]


@pytest.mark.parametrize(
    "saved",
    [{}, [], {"tensors": 3}, {"tensors": "rejector-no.safetensors"}, {"tensors": "rejector-/../../a.safetensors"}],
)
def test_a_rejector_without_its_tensors_is_refused(saved: object, tmp_path: Path) -> None:
    (tmp_path / "rejector-").mkdir()
    (tmp_path / "a.safetensors").write_text("x")
    with pytest.raises(ValueError, match=r"rejector.json in .* names no file rejector-\*.safetensors beside it"):
        files_to_publish(written(tmp_path, saved))
