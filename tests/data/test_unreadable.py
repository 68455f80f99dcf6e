"""All images that cannot be read are named at once."""

from pathlib import Path

import pytest
import torch

from cosify.data import PipelineSettings, Preprocessing, Shard, load_splits, open_data, unreadable_images
from cosify.data import open as opening
from cosify.errors import InputError
from tests.data.folders import broken_bytes, image_folder, picture, splits_of

CPU = torch.device("cpu")


def broken_folder(folder: Path) -> tuple[Path, list[str]]:
    image_folder(folder, per_class=8)
    content = {"train/cat/3.png": b"", "train/dog/1.png": b"<html>", "test/dog/0.png": broken_bytes()["bytes"]}
    for name, file in content.items():
        (folder / name).write_bytes(file)
    return folder, [str(folder / name) for name in content]


@pytest.mark.parametrize("pipeline", ["auto", "device"])
def test_the_error_counts_and_names_them(tmp_path: Path, pipeline: str) -> None:
    folder, paths = broken_folder(tmp_path / "d")
    splits = load_splits(str(folder))
    assert list(unreadable_images(splits)) == paths
    assert "'test' (" in unreadable_images(splits)[paths[2]]
    with pytest.raises(InputError) as caught:
        open_data(splits, PipelineSettings(pipeline=pipeline), Preprocessing(None, 8), data="d", device=CPU)  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"image in row 3 of split 'train' ({paths[0]}) cannot be read (Unidentified")
    assert str(caught.value).endswith(f"; 3 images of these data cannot be read: {', '.join(paths)}")


def test_some_of_many_are_named() -> None:
    splits = splits_of([picture(0), *[broken_bytes()] * 6], [0, 1] * 4, test=[picture(1), None])
    assert list(unreadable_images(splits)) == [
        *(f"row {row} of split 'train'" for row in range(1, 7)),
        "row 1 of split 'test'",
    ]
    with pytest.raises(
        InputError, match=r"; 7 images of these data cannot be read: row 1 of .*, row 5 of split 'train', \.\.\.$"
    ):
        open_data(splits, PipelineSettings(pipeline="device"), Preprocessing(None, 8), data="d", device=CPU)


def test_where_they_are_read_in_training_the_error_says_what_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = broken_folder(tmp_path / "d")
    splits, hint = (
        load_splits(str(folder)),
        r"repair or remove it; unreadable_images of cosify.data lists all such images",
    )
    workers, expects = PipelineSettings(pipeline="workers", num_workers=0), Preprocessing(None, 8)
    monkeypatch.setattr(opening, "SEARCHED", 1)
    with pytest.raises(InputError, match=hint):
        open_data(splits, workers, expects, data="d", device=CPU)
    monkeypatch.setattr(opening, "SURVEYED", 1)
    given = Preprocessing(None, 8, mean=(0.5,) * 3, std=(0.5,) * 3)
    data = open_data(splits, workers, given, data="d", device=CPU)
    with pytest.raises(InputError, match=hint):
        list(data.train_batches(4, epoch=0, seed=0, shard=Shard()))


def test_a_stream_is_not_searched(tmp_path: Path) -> None:
    folder, _ = broken_folder(tmp_path / "d")
    splits = load_splits(str(folder), streaming=True, num_train=16)
    with pytest.raises(InputError, match=r"the splits are streams, expected rows that can be read twice; load them"):
        unreadable_images(splits)
