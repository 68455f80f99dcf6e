"""Rejectors: what they accept, what comes back from the disk, and what is said of damaged files."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from PIL.Image import Image
from safetensors.torch import load_file, save_file

import cosify
from cosify.data import Preprocessing, load_images, load_splits
from cosify.evaluation import (
    SCORES,
    CacheKey,
    Decision,
    Decisions,
    FeatureCache,
    Rejector,
    cache_features,
    threshold_at,
)
from cosify.evaluation.rejector import SAVED
from cosify.hub import load
from tests.evaluation.caches import make_cache
from tests.killing import killed

HEADS = {"cosine": {"kappa": 5.0}, "stock": {"kappa": None, "bias": True}, "stock without bias": {"kappa": None}}


def caches(head: str = "cosine") -> tuple[FeatureCache, FeatureCache, FeatureCache]:
    """Return train, held-out and new samples."""
    train, held_out, new = (make_cache(seed=seed, spread=1.0, **HEADS[head]) for seed in (1, 2, 3))  # type: ignore[arg-type]
    return train, held_out, new


def rows(cache: FeatureCache) -> torch.Tensor:
    return torch.from_numpy(np.array(cache.embedding))


def tensors_of(folder: Path) -> Path:
    return folder / str(json.loads((folder / "rejector.json").read_text())["tensors"])


def test_held_out_samples_of_other_classes_are_refused() -> None:
    _, held_out, _ = caches()
    info = dataclasses.replace(held_out.info, label_names=("class 3", "class 0"))
    others = FeatureCache.of_rows(info, held_out.weight, held_out.bias, rows(held_out))
    with pytest.raises(ValueError, match="the data have 2 classes and the model 4, expected as many; evaluate on the"):
        Rejector.fit("z_max", None, others)


def test_every_score_but_knn_is_saved() -> None:
    assert set(SAVED) == set(SCORES) - {"knn"}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("score", SAVED)
def test_round_trip(score: str, head: str, tmp_path: Path) -> None:
    train, held_out, new = caches(head)
    fitted = Rejector.fit(score, train, held_out)
    assert fitted.save(tmp_path) == tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {"rejector.json", tensors_of(tmp_path).name}
    loaded = Rejector.load(str(tmp_path))
    first, second = fitted(rows(new)), loaded(rows(new))
    assert torch.equal(first.label, torch.from_numpy(new.predictions))
    assert torch.equal(first.score, torch.from_numpy(SCORES[score].fit(train)(new)))
    assert torch.equal(first.accept, first.score >= fitted.threshold)
    assert 0 < int(first.accept.sum()) < len(new)
    for one, other in zip(first, second, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    for name in ("score", "threshold", "share", "num_held_out", "info"):
        assert getattr(loaded, name) == getattr(fitted, name)
    assert (fitted.folder, loaded.folder) == (None, tmp_path)


@pytest.mark.parametrize("dim", [96, 257])
def test_round_trip_of_many_dimensions(dim: int, tmp_path: Path) -> None:
    # The order of elements in memory, and where they start, decide how sums round.
    train, new = (make_cache(600, dim=dim, num_classes=10, seed=seed) for seed in (1, 2))
    fitted = Rejector.fit("mahalanobis", train, train)
    loaded = Rejector.load(fitted.save(tmp_path))
    assert torch.equal(loaded(rows(new)).score, fitted(rows(new)).score)


def test_saved_again(tmp_path: Path) -> None:
    train, held_out, new = caches()
    Rejector.fit("mahalanobis", train, held_out).save(tmp_path)
    Rejector.fit("z_max", None, held_out).save(tmp_path)
    loaded = Rejector.load(tmp_path)
    assert loaded.score == "z_max"
    assert set(load_file(tensors_of(tmp_path))) == {"weight"}
    loaded.save(tmp_path / "new" / "folder")
    assert torch.equal(Rejector.load(tmp_path / "new" / "folder")(rows(new)).score, loaded(rows(new)).score)


def test_numbers_that_float16_holds_take_half_the_room(tmp_path: Path) -> None:
    fitted = Rejector.fit("z_max", None, caches()[1])
    for rounded, dtype in (
        (fitted, torch.float32),
        (dataclasses.replace(fitted, weight=fitted.weight.half().float()), torch.float16),
    ):
        rounded.save(tmp_path)
        assert load_file(tensors_of(tmp_path))["weight"].dtype == dtype
        weight = Rejector.load(tmp_path).weight
        assert weight.dtype == torch.float32
        assert torch.equal(weight, rounded.weight)


def test_folder_of_a_run(tmp_path: Path) -> None:
    _, held_out, _ = caches()
    Rejector.fit("z_max", None, held_out).save(tmp_path / "export")
    assert Rejector.load(tmp_path).folder == tmp_path / "export"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.8, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("score", SAVED)
def test_accepts_the_share_of_right_answers_and_no_more(score: str, share: float) -> None:
    train, held_out, _ = caches()
    assert 0.5 < held_out.correct.mean() < 1
    fitted = Rejector.fit(score, train, held_out, share=share)
    decision = fitted(rows(held_out))
    right = decision.score[torch.from_numpy(held_out.correct)].double()
    assert fitted.num_held_out == len(right) == held_out.correct.sum()
    least = threshold_at(right, share)
    assert torch.equal(decision.accept, decision.score.double() >= least)
    lower = least - fitted.threshold  # so that the last digits of an image in another batch do not decide
    assert 0 < lower < 1.01e-4 * float(right.max() - right.min())


def test_one_score_that_is_out_of_all_bounds_does_not_move_the_threshold() -> None:
    lengths = torch.tensor([1.0, 2.0, 3.0, 1e30])
    held_out = make_cache(
        embedding=torch.stack([torch.zeros(4), lengths], dim=1),
        weight=torch.eye(2),
        labels=torch.ones(4).long(),
        kappa=5.0,
    )
    assert Rejector.fit("norm", None, held_out).threshold == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize("score", SAVED)
def test_an_image_alone_is_decided_as_in_its_batch(score: str) -> None:
    """As float32 sums over another batch move an embedding: the image at the threshold stays accepted."""
    train, held_out, _ = caches()
    fitted = Rejector.fit(score, train, held_out)
    signs = torch.randn(rows(held_out).shape, generator=torch.Generator().manual_seed(0)).sign()
    moved = rows(held_out) * (1 + 3e-7 * signs)
    assert torch.equal(fitted(moved).accept, fitted(rows(held_out)).accept)


def test_ties_are_accepted_together() -> None:
    held_out = make_cache(
        embedding=torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 2.0]] * 6 + [[0.0, 3.0]] * 2),
        weight=torch.eye(2),
        labels=torch.tensor([0, 0] + [1] * 6 + [0, 0]),  # the last two are wrong, and do not count
        kappa=None,
    )
    for share, threshold, accepted in ((0.25, 2.0, 8), (0.75, 2.0, 8), (0.76, 1.0, 10), (1.0, 1.0, 10)):
        fitted = Rejector.fit("norm", None, held_out, share=share)
        assert (fitted.threshold, fitted.num_held_out) == (pytest.approx(threshold, abs=1.1e-4), 8)
        assert int(fitted(rows(held_out)).accept.sum()) == accepted


def test_wrong_answers_are_rejected_more_often() -> None:
    _, held_out, new = caches()
    accept = Rejector.fit("z_max", None, held_out, share=0.8)(rows(new)).accept.numpy()
    assert accept[new.correct].mean() > accept[~new.correct].mean() + 0.2


def test_one_embedding_is_a_batch_of_one() -> None:
    train, held_out, new = caches()
    fitted = Rejector.fit("norm_mahalanobis", train, held_out)
    one, whole = fitted(rows(new)[3]), fitted(rows(new))
    assert (one.label.shape, one.score.shape, one.accept.shape) == ((1,), (1,), (1,))
    assert (one.label[0], one.accept[0]) == (whole.label[3], whole.accept[3])
    assert float(one.score[0]) == pytest.approx(float(whole.score[3]), rel=1e-6)


def test_embeddings_of_training() -> None:
    train, held_out, new = caches()
    fitted = Rejector.fit("mahalanobis", train, held_out)
    embedding = rows(new).double().requires_grad_()
    decision = fitted(embedding)
    assert torch.equal(decision.score, fitted(rows(new)).score)
    assert not decision.score.requires_grad
    assert embedding.grad is None


@pytest.mark.parametrize("head", HEADS)
def test_features_that_are_not_finite(head: str) -> None:
    broken = torch.ones(3, 8)
    broken[1, 2] = torch.nan
    with pytest.raises(ValueError, match="embedding holds NaN or infinity in 1 of 3 rows, expected finite features"):
        Rejector.fit("norm", None, caches(head)[1])(broken)


@pytest.mark.parametrize("shape", [(7,), (3, 7), (3, 9), ()])
def test_another_dimension(shape: tuple[int, ...]) -> None:
    message = f"embeddings have shape {list(shape)}, expected [B, 8], what the model's classifier gets"
    with pytest.raises(ValueError, match=re.escape(message)):
        Rejector.fit("z_max", None, caches()[1])(torch.ones(shape))


def test_scores_that_cannot_be_saved() -> None:
    train, held_out, _ = caches()
    for score in ("knn", "max_prob"):
        with pytest.raises(ValueError, match=rf"score is '{score}', expected one of z_max, norm, .*, max_logit$"):
            Rejector.fit(score, train, held_out)


@pytest.mark.parametrize("score", ["norm_mahalanobis", "mahalanobis", "mahalanobis_unit"])
def test_scores_that_need_training_features(score: str) -> None:
    with pytest.raises(ValueError, match=f"score '{score}' is fitted on training features, expected a cache of them"):
        Rejector.fit(score, None, caches()[1])


def test_nothing_right_and_a_share_of_nothing() -> None:
    _, held_out, _ = caches()
    wrong = dataclasses.replace(held_out, labels=(held_out.predictions + 1) % 4)
    with pytest.raises(ValueError, match=re.escape("accepted scores have shape [0], expected [N] with N at least 1")):
        Rejector.fit("z_max", None, wrong)
    with pytest.raises(ValueError, match=re.escape("share is 0.0, expected above 0 and at most 1")):
        Rejector.fit("z_max", None, held_out, share=0.0)


def edit(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        saved = json.loads((folder / "rejector.json").read_text())
        for name, value in changes.items():
            if value is None:
                del saved[name]
            else:
                saved[name] = value
        (folder / "rejector.json").write_text(json.dumps(saved))

    return damage


def text(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "rejector.json").write_text(content)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        found = load_file(tensors_of(folder))
        change(found)
        save_file(found, tensors_of(folder))

    return damage


def truncate(folder: Path) -> None:
    file = tensors_of(folder)
    file.write_bytes(file.read_bytes()[:-9])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no json": (text("{"), "JSONDecodeError"),
    "an empty file": (text(""), "JSONDecodeError"),
    "a list": (text("[]"), "TypeError"),
    "a number": (text("3"), "AttributeError"),
    "null": (text("null"), "AttributeError"),
    "an empty object": (text("{}"), "KeyError: 'format'"),
    "other format": (edit(format=2), "InputError: it is of another version of cosify"),
    "no format": (edit(format=None), "KeyError: 'format'"),
    "no threshold": (edit(threshold=None), "KeyError: 'threshold'"),
    "no number": (edit(threshold="high"), "ValueError: could not convert string to float"),
    "threshold NaN": (edit(threshold=float("nan")), "InputError: threshold is nan, expected a finite number"),
    "threshold -inf": (edit(threshold=-float("inf")), "InputError: threshold is -inf, expected a finite number"),
    "share above 1": (edit(share=1.5), "InputError: share is 1.5, expected above 0 and at most 1"),
    "tensors elsewhere": (edit(tensors="../rejector.safetensors"), "InputError: tensors is '../rejector.safetensors'"),
    "deep": (text("[" * 100_000), "RecursionError"),
    "no finite weight": (tensors(lambda found: found["weight"].fill_(torch.nan)), "InputError: weight holds NaN"),
    "threshold of a list": (edit(threshold=[1]), "TypeError"),
    "no info": (edit(info=None), "KeyError: 'info'"),
    "other info": (edit(info={"key": {}}), "InputError: CacheInfo differs in ['dim', "),
    "info of text": (edit(info="x"), "InputError: CacheInfo differs in str"),
    "no share": (edit(share=None), "TypeError"),
    "one key more": (edit(more=1), "TypeError"),
    "unknown score": (edit(score="best"), "InputError: score is 'best', expected one of z_max"),
    "knn": (edit(score="knn"), "InputError: score is 'knn', expected one of z_max"),
    "score of a list": (edit(score=["norm"]), "InputError: score is ['norm'], expected one of z_max"),
    "no tensors": (lambda folder: tensors_of(folder).unlink(), "FileNotFoundError"),
    "truncated": (truncate, "SafetensorError"),
    "no weight": (tensors(lambda found: found.pop("weight")), "KeyError: 'weight'"),
    "no means": (tensors(lambda found: found.pop("means")), "KeyError: 'means'"),
    "weight of another model": (
        tensors(lambda found: found.update(weight=torch.ones(4, 7))),
        "InputError: weight has shape [4, 7], expected [4, 8]",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged(name: str, tmp_path: Path) -> None:
    train, held_out, _ = caches()
    Rejector.fit("mahalanobis", train, held_out).save(tmp_path)
    damage, reason = DAMAGES[name]
    damage(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"the rejector in {tmp_path} cannot be read ({reason}")) as caught:
        Rejector.load(tmp_path)
    assert str(caught.value).endswith("expected what cosify.Rejector.save writes; fit and save it again")


@pytest.mark.parametrize("failing", ["save_file", "write_whole"])
def test_the_old_rejector_stays_until_the_new_one_is_whole(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, held_out, new = caches()
    old = Rejector.fit("mahalanobis", train, held_out)
    old.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    other = Rejector.fit("z_max", train, new)
    with monkeypatch.context() as patch:
        patch.setattr(f"cosify.evaluation.rejector.{failing}", killed)
        with pytest.raises(KeyboardInterrupt):
            other.save(tmp_path)
    assert before.items() <= {path.name: path.read_bytes() for path in tmp_path.iterdir()}.items()
    assert Rejector.load(tmp_path).threshold == old.threshold
    (tmp_path / "rejector-notes.safetensors").write_text("mine")
    other.save(tmp_path)
    names = {"rejector.json", "rejector-notes.safetensors", tensors_of(tmp_path).name}
    assert {path.name for path in tmp_path.iterdir()} == names, "and then goes, nothing else"


def test_what_killed_saves_leave_goes_with_the_next(tmp_path: Path) -> None:
    train, held_out, new = caches()
    Rejector.fit("mahalanobis", train, held_out).save(tmp_path)
    other = Rejector.fit("z_max", train, new)
    for rename in (None, 0, 1):
        killed(lambda: other.save(tmp_path), rename=rename)
        assert Rejector.load(tmp_path).score == "mahalanobis"
        assert list(tmp_path.glob(".*.new/*")), "nothing is left"
    Rejector.fit("mahalanobis", train, held_out).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"rejector.json", tensors_of(tmp_path).name}


def test_rejectors_of_earlier_editions_open(tmp_path: Path) -> None:
    train, held_out, _ = caches()
    fitted = Rejector.fit("mahalanobis", train, held_out)
    fitted.save(tmp_path)
    tensors_of(tmp_path).rename(tmp_path / "rejector.safetensors")
    edit(tensors=None)(tmp_path)
    assert Rejector.load(tmp_path).threshold == fitted.threshold
    fitted.save(tmp_path)
    assert not (tmp_path / "rejector.safetensors").exists()


def test_no_rejector(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no rejector.json, expected a model for which one was fitted"):
        Rejector.load(tmp_path)


def test_images_before_loading() -> None:
    with pytest.raises(ValueError, match="this rejector is not beside a model yet, expected embeddings; call save"):
        Rejector.fit("z_max", None, caches()[1])(torch.ones(2, 3, 8, 8))


def build(folder: Path, seed: int = 0, num_classes: int = 10) -> None:
    torch.manual_seed(seed)
    model = timm.create_model("test_resnet", head="cos", kappa="ls", num_classes=num_classes)
    F.cross_entropy(model(torch.randn(10, 3, 64, 64)), torch.arange(10) % num_classes).backward()  # kappa needs a step
    cosify.save(model.eval(), folder)


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FeatureCache, list[Image]]:
    """Return a folder with model and rejector, the cache that it was fitted on, and its images."""
    folder = tmp_path_factory.mktemp("images")
    build(folder / "model")
    images = load_splits("digits").only("test", 40)
    model = load(folder / "model")
    cache = cache_features(model, images, Preprocessing.of_pretrained(model), folder / "cache")
    cache = dataclasses.replace(cache, labels=np.where(np.arange(40) < 30, cache.predictions, 0))
    Rejector.fit("norm_mahalanobis", cache, cache, share=0.5).save(folder / "model")
    return folder / "model", cache, [row["image"] for row in images.test]


def test_images(of_images: tuple[Path, FeatureCache, list[Image]]) -> None:
    folder, cache, images = of_images
    rejector = Rejector.load(folder)
    expected = torch.from_numpy(SCORES["norm_mahalanobis"].fit(cache)(cache))
    assert 0 < int((expected >= rejector.threshold).sum()) < 40

    decision = rejector(images)
    assert torch.equal(decision.label, torch.from_numpy(np.array(cache.predictions)))
    torch.testing.assert_close(decision.score, expected, rtol=1e-3, atol=0)
    assert torch.equal(decision.accept, decision.score >= rejector.threshold)
    assert torch.equal(rejector([image.convert("RGB") for image in images]).score, decision.score)

    for index in range(3):
        one = rejector(images[index])
        assert (one.label, one.accept) == (cache.predictions[index], decision.accept[index])
        assert one.score == pytest.approx(float(expected[index]), rel=1e-3)

    enlarged = [image.convert("RGB").resize((round(160 / 0.95),) * 2, 2).crop((4, 4, 164, 164)) for image in images[:4]]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in enlarged])).permute(0, 3, 1, 2) / 255
    batch = rejector((pixels - 0.5) / 0.5)  # as the model's configuration says
    assert torch.equal(batch.label, decision.label[:4])
    torch.testing.assert_close(batch.score, decision.score[:4], rtol=0.02, atol=0)

    embedding = rejector(torch.from_numpy(np.array(cache.embedding)))
    assert torch.equal(embedding.label, decision.label)
    torch.testing.assert_close(embedding.score, expected, rtol=1e-6, atol=0)


def test_one_image_one_decision(of_images: tuple[Path, FeatureCache, list[Image]], tmp_path: Path) -> None:
    folder, cache, images = of_images
    rejector = Rejector.load(folder)
    file, image = tmp_path / "a.png", images[3].convert("RGB")
    image.save(file)
    pixels = np.asarray(image)
    one = rejector(file)
    assert isinstance(one, Decision)
    assert (one.label, one.name, one.threshold) == (cache.predictions[3], str(cache.predictions[3]), rejector.threshold)
    assert (type(one.label), type(one.score), type(one.accept)) == (int, float, bool)
    assert one.accept == (one.score >= rejector.threshold)
    label, score, accept = one
    assert (label, score, accept) == (one.label, one.score, one.accept)
    of_torch = torch.from_numpy(pixels.copy())
    for same in (
        str(file),
        image,
        pixels,
        pixels[:, :, [0]],
        pixels[:, :, 0].astype(np.uint16) * 257,
        of_torch[:, :, 0],
    ):
        assert rejector(same) == one
    assert rejector(of_torch.permute(2, 0, 1)) == one
    opaque = np.concatenate([pixels, np.full_like(pixels[:, :, :1], 255)], axis=2)
    assert rejector(opaque) == one


def test_a_list_for_a_list(
    of_images: tuple[Path, FeatureCache, list[Image]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache, images = of_images
    rejector = Rejector.load(folder)
    for place, image in enumerate(images):
        image.save(tmp_path / f"{place:02}.png")
    files = sorted(tmp_path.iterdir())
    found = rejector(files)
    assert isinstance(found, Decisions)
    assert [each.label for each in found] == found.label.tolist() == cache.predictions.tolist()
    assert (found.score.dtype, found.accept.tolist()) == (torch.float64, [each.accept for each in found])
    batch = np.stack([np.asarray(image.convert("RGB")) for image in images])
    few = rejector(files[:6])
    assert few.label.tolist() == found.label.tolist()[:6]
    mixed = [str(files[0]), images[1], batch[2], *files[3:6]]
    columns = load_splits("digits").only("test", 40).test[:6]["image"]
    of_torch = torch.from_numpy(batch).permute(0, 3, 1, 2)
    for same in (images[:6], tuple(images[:6]), iter(files[:6]), mixed, batch[:6], of_torch[:6], columns):
        assert rejector(same) == few
    assert len(rejector(files[:1])) == 1

    sizes: list[int] = []
    decide = Rejector._decide
    monkeypatch.setattr(Rejector, "_decide", lambda self, x, *rest: (sizes.append(len(x)), decide(self, x, *rest))[1])
    opened = (file for _ in range(4) for file in files)  # 160 files, which no list holds
    again = rejector(opened)
    assert sizes == [64, 64, 32]
    assert again.label.tolist() == found.label.tolist() * 4


def test_what_is_no_image(of_images: tuple[Path, FeatureCache, list[Image]], tmp_path: Path) -> None:
    folder, _, images = of_images
    rejector = Rejector.load(folder)
    missing, broken = tmp_path / "none.png", tmp_path / "broken.png"
    broken.write_text("text")
    with pytest.raises(FileNotFoundError, match=re.escape(f"image {str(missing)!r} does not exist, expected the path")):
        rejector(missing)
    with pytest.raises(FileNotFoundError, match=re.escape(f"image 1 {str(missing)!r} does not exist")):
        rejector([images[0], missing])
    with pytest.raises(ValueError, match=re.escape(f"image {str(tmp_path)!r} is a folder, expected a file; give a")):
        rejector(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"image {str(broken)!r} cannot be read (UnidentifiedImageError")):
        rejector(str(broken))
    for what, kind in ((b"bytes", "bytes"), (None, "NoneType"), ({"image": 1}, "dict"), (3, "int")):
        with pytest.raises(TypeError, match=f"image is a {kind}, expected the path of a file, an image of Pillow, or"):
            rejector(what)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="image 0 is a list, expected the path of a file"):
        rejector([[images[0]]])
    with pytest.raises(TypeError, match="an array of <U5 came, expected numbers"):
        rejector(np.array(["a.jpg"]))
    with pytest.raises(ValueError, match=re.escape("image 0 is a ndarray of float32 [8, 8, 3], expected uint8 pixels")):
        rejector([np.ones((8, 8, 3), np.float32)])
    for shape in ((3, 8, 8), (8, 8, 2), (8,), (0, 8, 3), (1, 1, 8, 8, 3)):
        with pytest.raises(ValueError, match=re.escape(f"image is a ndarray of uint8 {list(shape)}, expected uint8")):
            rejector(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=re.escape("image is a Tensor of uint8 [8, 8, 3], expected uint8 pixels, [H")):
        rejector(torch.zeros(8, 8, 3, dtype=torch.uint8))


def test_arrays_of_floats_are_what_tensors_are(of_images: tuple[Path, FeatureCache, list[Image]]) -> None:
    folder, cache, _ = of_images
    rejector = Rejector.load(folder)
    for array in (cache.embedding[:5].copy(), np.random.default_rng(0).normal(size=(2, 3, 64, 64))):
        of_numpy, of_torch = rejector(array), rejector(torch.from_numpy(array).float())
        assert all(torch.equal(one, other) for one, other in zip(of_numpy, of_torch, strict=True))


def test_what_a_reader_sees(of_images: tuple[Path, FeatureCache, list[Image]]) -> None:
    folder, cache, images = of_images
    rejector = Rejector.load(folder)
    assert repr(rejector) == (
        f"Rejector(norm_mahalanobis >= {rejector.threshold:.4g} accepts 0.5 of {rejector.num_held_out} right answers;"
        f" 10 classes; {folder})"
    )
    assert repr(Rejector.fit("norm", None, cache)).endswith("not saved yet)")
    decisions = rejector(images)
    accepted = next(each for each in decisions if each.accept)
    assert repr(accepted) == (
        f"'{accepted.name}' (class {accepted.label}): accepted, score {accepted.score:.4g}, threshold"
        f" {rejector.threshold:.4g}"
    )
    lines = repr(decisions).splitlines()
    number = sum(each.accept for each in decisions)
    assert (lines[0], lines[-1]) == (f"{number} of 40 accepted", "... and 30 more")
    assert (len(lines), lines[1]) == (12, f"0: {decisions[0]!r}")
    assert repr(rejector(torch.from_numpy(cache.embedding.copy()))).startswith(f"{number} of 40 accepted, in tensors")


def test_names_of_other_classes_are_not_given(of_images: tuple[Path, FeatureCache, list[Image]]) -> None:
    folder, cache, images = of_images
    rejector = Rejector.load(folder)
    for names, name in ((tuple("abcdefghij"), "abcdefghij"[cache.predictions[0]]), (("x",), str(cache.predictions[0]))):
        info = dataclasses.replace(rejector.info, label_names=names)
        assert dataclasses.replace(rejector, info=info)(images[0]).name == name


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 1, 64, 64), (1, 2, 3, 64, 64)])
def test_shapes_of_images(shape: tuple[int, ...], of_images: tuple[Path, FeatureCache, list[Image]]) -> None:
    message = f"images have shape {list(shape)}, expected [B, 3, H, W], normalised; call images.unsqueeze(0) on a"
    with pytest.raises(ValueError, match=re.escape(message)):
        Rejector.load(of_images[0])(torch.ones(shape))


def test_no_image(of_images: tuple[Path, FeatureCache, list[Image]]) -> None:
    with pytest.raises(ValueError, match="the list of images is empty, expected at least one"):
        Rejector.load(of_images[0])([])


def test_a_model_that_was_replaced(of_images: tuple[Path, FeatureCache, list[Image]], tmp_path: Path) -> None:
    folder, cache, images = of_images
    build(tmp_path, seed=1)
    for name in ("rejector.json", tensors_of(folder).name):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    rejector = Rejector.load(tmp_path)
    with pytest.raises(ValueError, match=r"the model in .* is not the one that the rejector was fitted for; fit and"):
        rejector(images)
    assert len(rejector(torch.from_numpy(np.array(cache.embedding))).label) == 40, "of embeddings it cannot know"


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    _, held_out, _ = caches()
    Rejector.fit("z_max", None, held_out).save(tmp_path)
    with pytest.raises(ValueError, match=r"config.json does not exist, expected the config.json of a saved model"):
        Rejector.load(tmp_path)(torch.ones(1, 3, 8, 8))


def test_caches_of_two_models_do_not_mix() -> None:
    train = make_cache(100)
    other = dataclasses.replace(train, info=dataclasses.replace(train.info, key=CacheKey("another", "", "")))
    with pytest.raises(ValueError, match="are caches of different models"):
        Rejector.fit("mahalanobis", other, make_cache(50, seed=1))


def test_no_embedding_no_decision(tmp_path: Path) -> None:
    Rejector.fit("norm", None, make_cache(50)).save(tmp_path)
    decision = Rejector.load(tmp_path)(torch.empty(0, 8))
    assert [len(each) for each in decision] == [0, 0, 0]


def test_images_go_through_the_transform_of_the_fit(tmp_path: Path) -> None:
    """At another size than the model's own; the cache is of the model in memory, whose rows are not yet scaled."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", head="cos", num_classes=10)
    model(torch.randn(8, 3, 32, 32))
    images = load_splits("digits").only("test", 40)
    cache = cache_features(model.eval(), images, Preprocessing.of_pretrained(model, image_size=32), tmp_path / "cache")
    cosify.save(model, tmp_path / "model")
    Rejector.fit("norm", None, cache).save(tmp_path / "model")
    found = Rejector.load(tmp_path / "model")(list(images.test["image"]))
    assert found.label.tolist() == cache.predictions.tolist()
    torch.testing.assert_close(found.score, torch.from_numpy(cache.norm), rtol=1e-4, atol=1e-4)


def test_images_are_upright_and_opaque_as_those_of_the_fit(tmp_path: Path) -> None:
    """Whether they come from the files, as here, or decoded by datasets."""
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (48, 40, 4), dtype=np.uint8)
        exif = PILImage.Exif()
        exif[0x0112] = 3 + index  # half turn, mirrored, lying on a side
        (tmp_path / "data" / "train" / str(index % 2)).mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(pixels).save(tmp_path / "data" / "train" / str(index % 2) / f"{index}.png", exif=exif)
    images = load_images(f"{tmp_path / 'data'}:train")
    build(tmp_path / "model", num_classes=2)
    model = load(tmp_path / "model")
    cache = cache_features(model, images, Preprocessing.of_pretrained(model), tmp_path / "cache")
    Rejector.fit("norm", None, dataclasses.replace(cache, labels=cache.predictions)).save(tmp_path / "model")
    rejector = Rejector.load(tmp_path / "model")
    files = images.test.cast_column("image", datasets.Image(decode=False))["image"]
    expected = torch.from_numpy(cache.norm)
    paths = [file["path"] for file in files]
    for given in (list(images.test["image"]), [PILImage.open(path) for path in paths], paths):
        torch.testing.assert_close(rejector(given).score, expected, rtol=1e-5, atol=0)
    turned = rejector([image.transpose(PILImage.Transpose.ROTATE_90) for image in images.test["image"]]).score
    assert not torch.allclose(turned, expected, rtol=1e-3), "so that the comparison above says something"
    with pytest.raises(ValueError, match="image 1 has floating point pixels"):
        rejector([images.test[0]["image"], PILImage.fromarray(np.ones((8, 8), np.float32))])
