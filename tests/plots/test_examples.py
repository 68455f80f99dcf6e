"""Pictures of a report: which ones are chosen, what stands below them, how large they get, and none without data."""

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cosify.data import Splits, load_images
from cosify.evaluation import FeatureCache, Rejector, assess
from cosify.plots import Examples, Subject, examples, find_examples
from cosify.plots.examples import data_uri
from tests.evaluation.caches import make_cache

NUM = 60


def pixels_of(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def folder_of(folder: Path, num: int = NUM, side: int = 8) -> Splits:
    """Return images whose grey level is the number of their row."""
    (folder / "train").mkdir(parents=True)
    for row in range(num):
        Image.new("L", (side, side), row).save(folder / "train" / f"{row:03}.png")
    return load_images(f"{folder}:train")


@pytest.fixture
def caches() -> tuple[FeatureCache, FeatureCache]:
    far = make_cache(labels=torch.full((NUM,), -1), seed=3)
    return make_cache(NUM, seed=2, spread=1.2), dataclasses.replace(
        far, info=dataclasses.replace(far.info, label_names=("unlabelled",))
    )


def subject(test: FeatureCache, far: FeatureCache, name: str = "m") -> Subject:
    return Subject(
        assess(name, test, ood={"far": far}, resamples=100),
        test,
        {"far": far},
        None,
        Rejector.fit("z_max", None, test, share=0.7),
    )


@pytest.fixture
def found(caches: tuple[FeatureCache, FeatureCache], tmp_path: Path) -> Examples:
    images, others = folder_of(tmp_path / "a"), folder_of(tmp_path / "b")
    return find_examples([subject(*caches)], images, {"far": others})


def test_the_rows_that_the_scores_name(caches: tuple[FeatureCache, FeatureCache], found: Examples) -> None:
    test, far = caches
    score = test.top_cosine[:, 0].astype(np.float64)
    of_far, threshold = far.top_cosine[:, 0].astype(np.float64), Rejector.fit("z_max", None, test, share=0.7).threshold
    every = np.arange(NUM)
    expected = {
        "m: surest right answers": sorted(every[test.correct], key=lambda row: -score[row]),
        "m: least sure answers": sorted(every, key=lambda row: score[row]),
        "m: surest mistakes": sorted(every[~test.correct], key=lambda row: -score[row]),
        "m: turned away from the unseen set far": sorted(every[of_far < threshold], key=lambda row: of_far[row]),
        "m: accepted from the unseen set far": sorted(every[of_far >= threshold], key=lambda row: -of_far[row]),
    }
    assert [group.title for group in found.groups] == list(expected)
    for group in found.groups:
        rows = expected[group.title][:8]
        assert [pixels_of(each.uri).getpixel((3, 3)) for each in group.examples] == rows
        of, values = (test, score) if "unseen" not in group.title else (far, of_far)
        for row, each in zip(rows, group.examples, strict=True):
            assert (each.answer, each.score) == (f"class {of.predictions[row]}", values[row])
            assert each.text.startswith(f"Image in row {row}: the answer is class {of.predictions[row]}")
            wrong = of is test and not test.correct[row]
            assert each.truth == (f"class {test.labels[row]}" if wrong else None)
            assert (f"the label class {test.labels[row]}" in each.text) == wrong
    assert "z_max" in found.note


def test_no_data_no_pictures(caches: tuple[FeatureCache, FeatureCache], tmp_path: Path) -> None:
    images, others = folder_of(tmp_path / "a"), folder_of(tmp_path / "b")
    for file in (tmp_path / "b" / "train").iterdir():
        file.unlink()
    gone = find_examples([subject(*caches)], images, {"far": others})
    assert gone.groups == ()
    assert gone.note.startswith("The pictures are left out: an image could not be opened again (image in row ")
    other = find_examples([subject(*caches)], folder_of(tmp_path / "c", NUM - 1), {"far": images})
    assert other.groups == ()
    assert "the data have 59 images, the features are of 60" in other.note


def test_a_model_that_is_never_right_has_none(caches: tuple[FeatureCache, FeatureCache], tmp_path: Path) -> None:
    images = folder_of(tmp_path / "a")
    never = dataclasses.replace(subject(*caches), rejector=None)
    found = find_examples([never], images, {"far": images})
    assert (found.groups, found.note[:34]) == ((), "There are no pictures to show: no ")


def test_many_models_do_not_make_a_large_file(
    caches: tuple[FeatureCache, FeatureCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = folder_of(tmp_path / "a")
    many = [subject(*caches, name=f"m{number}") for number in range(6)]
    found = find_examples(many, images, {"far": images})
    assert len(found.groups) == examples.MOST_GROUPS < 6 * 5
    assert found.note.endswith("More kinds are left out, to keep this file small.")
    assert "left out" not in find_examples(many[:2], images, {"far": images}).note


def test_large_pictures_shrink_and_small_ones_stay() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 700, 3), dtype=np.uint8)
    large = Image.fromarray(noise)
    large.info = {"icc_profile": b"x" * 100_000, "comment": b"y" * 50_000}
    uri = data_uri(large)
    assert uri.startswith("data:image/jpeg;base64,")
    assert (pixels_of(uri).size, "icc_profile" in pixels_of(uri).info) == ((100, 128), False)
    assert large.size == (700, 900)
    assert len(uri) < 20_000
    small = Image.fromarray(noise[:64, :64])
    assert np.array_equal(np.asarray(pixels_of(data_uri(small))), noise[:64, :64])
    assert len(data_uri(small)) < 20_000
    assert pixels_of(data_uri(Image.new("L", (5000, 2)))).size == (128, 1)


def test_long_names_are_cut_below_and_whole_in_the_text(
    caches: tuple[FeatureCache, FeatureCache], tmp_path: Path
) -> None:
    test, far = caches
    long = tuple(f"{'x' * 80}{number}" for number in range(4))
    named = dataclasses.replace(test, info=dataclasses.replace(test.info, label_names=long))
    images = folder_of(tmp_path / "a")
    (first, *_) = find_examples([subject(named, far)], images, {"far": images}).groups
    assert first.examples[0].answer == "x" * 37 + "..."
    assert long[test.predictions[int(pixels_of(first.examples[0].uri).getpixel((0, 0)))]] in first.examples[0].text  # type: ignore[arg-type]
