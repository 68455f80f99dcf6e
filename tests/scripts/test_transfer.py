"""scripts/transfer.py: folds that share no image, pairs with the first backbone, results that grow."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosify.data import load_images
from cosify.errors import InputError
from cosify.evaluation.paired_probes import folds, probe_difference
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
    with pytest.raises(InputError, match="task digits has 29 images for each of 10 classes, expected 3 folds of"):
        transfer.few(load_images("digits:train"), "digits", replace(SMOKE, limit=299))


def test_differences_are_paired_by_fit_and_by_image() -> None:
    fold = folds(14, num_classes=2, per_class=2)
    assert fold.tolist() == [0, 0, 1, 1, 2, 2, -1] * 2
    generator = np.random.default_rng(0)
    shares = np.array([0.8, 0.7, 0.5])[:, None, None]  # two runs of a backbone, and its start
    correct = generator.random((3, 3, 14)) < shares  # by run, fit and image
    tested = fold.numpy() != np.arange(3)[:, None]
    made = [
        {
            "top1": [float(right[images].mean()) for right, images in zip(mine, tested, strict=True)],
            "right": "".join(str(count) for count in (mine & tested).sum(axis=0)),
            "num_classes": 2,
        }
        for mine in correct
    ]

    def expected(runs: list[int], seeds: float) -> str:
        both = correct[runs].mean(axis=0) - correct[2]
        by_fit = np.array([row[images].mean() for row, images in zip(both, tested, strict=True)])
        by_image = np.array([column[fits].mean() for column, fits in zip(both.T, tested.T, strict=True)])
        error = np.sqrt(by_fit.var(ddof=1) / 3 + by_image.var(ddof=1) / 14 + seeds)
        return f"{100 * by_fit.mean():+.2f} ± {100 * error:.2f}"

    backbones = {"start": [{"task": made[2]}], "b": [{"task": made[0]}], "c": [{"task": each} for each in made[:2]]}
    start, b, c = transfer.markdown(["start", "b", "c"], backbones, ["task"], 2).splitlines()[2:]
    top1 = [np.mean(each["top1"]) for each in made]
    assert start == f"| start | 1 | {100 * top1[2]:.2f} |  |"
    assert b == f"| b | 1 | {100 * top1[0]:.2f} | {expected([0], 0)} |"
    assert c == f"| c | 2 | {50 * sum(top1[:2]):.2f} | {expected([0, 1], np.var(top1[:2], ddof=1) / 2)} |"
    assert probe_difference([made[0]], [made[0]], 2) == (0, 0)


def test_models_of_one_name_are_refused() -> None:
    args = transfer.TransferArguments(models=["a/export", "b/export"], data=["digits:train"])
    with pytest.raises(InputError, match=r"models is \['a/export', 'b/export'\], expected .* of different names"):
        transfer.main(args)
    with pytest.raises(InputError, match=r"models is \['export=a', 'b/export'\]"):
        transfer.main(replace(args, models=["export=a", "b/export"]))
    with pytest.raises(InputError, match=r"data is named \[\], expected one or more"):
        transfer.main(replace(args, models=["a"], data=[]))


@pytest.mark.slow
def test_results_grow_and_follow_the_weights(tmp_path: Path) -> None:
    ls, sixty = transfer.SMOKE
    args = transfer.TransferArguments(
        models=[ls], data=["digits:train"], image_size=32, limit=300, output=str(tmp_path)
    )
    file = tmp_path / "transfer.json"

    def measured() -> dict[str, list[list[float]]]:
        backbones = json.loads(file.read_text(encoding="utf-8"))["backbones"]
        return {name: [tasks["digits-train"]["top1"] for tasks in runs] for name, runs in backbones.items()}

    transfer.main(args)
    first = measured()[ls][0]
    assert all(0.5 < share <= 1 for share in first)
    file.write_text(file.read_text(encoding="utf-8").replace(str(first[0]), "0.125"), encoding="utf-8")
    transfer.main(replace(args, models=[ls, sixty]))
    assert measured()[ls] == [[0.125, *first[1:]]], "what was there was measured again"
    assert measured()[sixty][0] != first
    transfer.main(replace(args, models=[ls, f"{sixty}={ls}", f"{sixty}={sixty}"]))
    assert measured()[sixty][0] == first, "a second seed, before the first"
    with pytest.raises(InputError, match="and another model named 'a' are the same, expected another seed"):
        transfer.main(replace(args, models=[f"a={ls}", f"a={ls}"]))
    transfer.main(replace(args, models=[ls, f"{sixty}={sixty}"]))
    assert len(measured()[sixty]) == 1, "a seed that was not named is in no mean"
    transfer.main(replace(args, models=[f"{ls}={sixty}"]))
    assert measured()[ls][0] == measured()[sixty][0], "the result of other weights"
    with pytest.raises(InputError, match=r"was measured with .*'seed': 0.*expected .*'seed': 1.*another --output"):
        transfer.main(replace(args, seed=1))
