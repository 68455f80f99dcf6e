"""Columns of images are found by what they hold."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from cosify.data import load_images, load_splits
from cosify.data.columns import has_labels
from cosify.errors import InputError
from tests.data.folders import picture


def png(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


def plain_parquet(folder: Path, *, struct: bool, more: dict[str, list[bytes]] | None = None) -> Path:
    """Write both splits as other tools than datasets do: without notes on types."""
    folder.mkdir()
    for split in ("train", "test"):
        files = [png(seed) for seed in range(4)]
        cells = [{"bytes": file, "path": None} for file in files] if struct else files
        pq.write_table(pa.table({"img": cells, "label": [0, 1, 1, 0], **(more or {})}), folder / f"{split}.parquet")
    return folder


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize("streaming", [True, False])
def test_the_only_column_of_files_is_that_of_the_images(tmp_path: Path, struct: bool, streaming: bool) -> None:
    folder = plain_parquet(tmp_path / "d", struct=struct, more={"digest": [b"a", b"b", b"c", b"d"]})
    if not streaming:
        splits = load_splits(str(folder))
        assert splits.image_column == load_images(str(folder)).image_column == "img"
        assert [image.size for image in splits.test["img"][:]] == [(6, 6)] * 4
    else:
        with pytest.raises(InputError, match=r"column 'label' of the stream is"):  # the images are found
            load_splits(str(folder), streaming=True, num_train=4)


def test_several_columns_of_files_are_not_chosen_from(tmp_path: Path) -> None:
    folder = plain_parquet(tmp_path / "d", struct=True, more={"mask": [png(seed) for seed in range(4)]})
    with pytest.raises(
        InputError, match=r"found several image columns, \['img', 'mask'\] among .*, expected one; name"
    ):
        load_splits(str(folder))
    assert load_splits(str(folder), image_column="mask").test[0]["mask"].size == (6, 6)


def test_a_column_of_something_else_is_named(tmp_path: Path) -> None:
    folder = plain_parquet(tmp_path / "d", struct=True)
    with pytest.raises(
        InputError, match=r"column 'label' of split 'train' is Value\('int64'\), expected images, or th"
    ):
        load_splits(str(folder), image_column="label")


@pytest.mark.parametrize(("labels", "has"), [([-1, -1], False), (["-1", ""], False), ([None, "a"], True), ([], False)])
def test_a_split_without_any_label_has_none(labels: list[Any], has: bool) -> None:
    assert has_labels(Dataset.from_dict({"label": labels}), "label") == has
    assert not has_labels(Dataset.from_dict({"label": labels}), "other")


def test_a_test_split_that_lacks_a_number_is_measured_by_the_numbers_of_train(tmp_path: Path) -> None:
    for split, labels in (("train", [0, 1, 2]), ("test", [0, 2])):
        pq.write_table(
            pa.table({"img": [png(seed) for seed in labels], "label": labels}), tmp_path / f"{split}.parquet"
        )
    found = load_images(f"{tmp_path}:test", labelled=True)
    assert found.label_names == ("0", "1", "2")
    assert found.test["label"][:] == [0, 2]
