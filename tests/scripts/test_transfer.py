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
    found = {"start": {"task": {"top1": [0.5, 0.6, 0.7, 0.8, 0.9]}}, "b": {"task": {"top1": [0.6, 0.7, 0.8, 0.9, 1.0]}}}
    rows = transfer.markdown(["start", "b"], found, ["task"]).splitlines()
    assert rows[2] == "| start | 70.00 |  |"
    assert rows[3] == "| b | 80.00 | +10.00 ± 0.00 |"


def test_models_of_one_name_are_refused() -> None:
    args = transfer.TransferArguments(models=["a/export", "b/export"], data=["digits:train"])
    with pytest.raises(InputError, match=r"models is named \['export', 'export'\], expected .* of different names"):
        transfer.main(args)
    with pytest.raises(InputError, match=r"data is named \[\], expected one or more"):
        transfer.main(replace(args, models=["a"], data=[]))


@pytest.mark.slow
def test_results_grow_and_follow_the_weights(tmp_path: Path) -> None:
    ls, sixty = transfer.SMOKE
    args = transfer.TransferArguments(models=[ls], data=["digits:train"], image_size=32, output=str(tmp_path))
    file = tmp_path / "transfer.json"

    def measured() -> dict[str, list[float]]:
        backbones = json.loads(file.read_text(encoding="utf-8"))["backbones"]
        return {name: tasks["digits-train"]["top1"] for name, tasks in backbones.items()}

    transfer.main(args)
    first = measured()[ls]
    assert all(0.5 < share <= 1 for share in first)
    file.write_text(file.read_text(encoding="utf-8").replace(str(first[0]), "0.125"), encoding="utf-8")
    transfer.main(replace(args, models=[ls, sixty]))
    assert measured()[ls] == [0.125, *first[1:]], "what was there was measured again"
    assert measured()[sixty] != first
    transfer.main(replace(args, models=[f"{ls}={sixty}"]))
    assert measured()[ls] == measured()[sixty], "the result of other weights"
    with pytest.raises(InputError, match=r"was measured with .*'seed': 0.*expected .*'seed': 1.*another --output"):
        transfer.main(replace(args, seed=1))
