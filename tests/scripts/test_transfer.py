"""scripts/transfer.py: folds that share no image, pairs with the first backbone, results that grow."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosify.data import load_images
from cosify.errors import InputError
from scripts import transfer

SMOKE = transfer.TransferArguments(smoke=True)


def test_classes_have_the_same_number_of_images_each_once() -> None:
    args = replace(SMOKE, limit=800)
    digits = load_images("digits:train")
    chosen = transfer.few(digits, "digits", args).test
    labels = np.asarray(chosen["label"][:])
    assert labels.tolist() == sorted(labels.tolist()), "folds are told from the place in the class"
    assert np.bincount(labels).tolist() == [80] * 10
    assert len({np.asarray(image).tobytes() for image in chosen["image"]}) == 800


def test_too_few_images_for_the_folds() -> None:
    with pytest.raises(
        InputError, match="task digits has 50 images for each of 10 classes, 10 in a fold, expected more"
    ):
        transfer.few(load_images("digits:train"), "digits", replace(SMOKE, limit=500))


def test_differences_are_paired_with_the_first() -> None:
    found = {"start": {"task": [0.5, 0.6, 0.7, 0.8, 0.9]}, "b": {"task": [0.6, 0.7, 0.8, 0.9, 1.0]}}
    rows = transfer.markdown(["start", "b"], found, ["task"]).splitlines()
    assert rows[2] == "| start | 70.00 |  |"
    assert rows[3] == "| b | 80.00 | +10.00 ± 0.00 |"


@pytest.mark.slow
def test_results_grow(tmp_path: Path) -> None:
    args = replace(SMOKE, data=["digits:train"], output=str(tmp_path))
    transfer.main(args)
    first = json.loads((tmp_path / "transfer.json").read_text(encoding="utf-8"))
    assert all(0.5 < share <= 1 for each in first["backbones"].values() for share in each["digits-train"])
    transfer.main(args)
    assert json.loads((tmp_path / "transfer.json").read_text(encoding="utf-8"))["backbones"] == first["backbones"]
    with pytest.raises(InputError, match=r"was measured with .*'seed': 0.*expected .*'seed': 1.*another --output"):
        transfer.main(replace(args, seed=1))
