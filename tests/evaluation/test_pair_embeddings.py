"""Embeddings for verification equal a loop over single pictures; cosines of LFW give scikit-learn's ROC curve."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.metrics import auc, roc_curve
from torch import Tensor, nn

import cosify
from cosify.data import Preprocessing, Shard, Splits, load_images, open_pairs
from cosify.evaluation import FeaturePass, check_folds, pair_cosines, verification_embeddings, verify_pairs
from tests.data.face_pictures import files
from tests.data.test_pair_lists import LFW
from tests.data.test_preprocessing import PROCESSORS, with_processor

NAMES = [f"{person}/{number}.png" for person in "abc" for number in (1, 2)]


def small_model(head: str = "cos") -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("test_resnet", num_classes=3, head=head)
    model(torch.randn(8, 3, 32, 32))  # sets kappa and the statistics of batch norm
    return model


def pictures(folder: Path, size: tuple[int, int] = (40, 40)) -> Splits:
    return load_images(str(files(folder, NAMES, size)))


def by_hand(model: Any, images: list[Image.Image]) -> Tensor:
    """Return embeddings through timm's own transform and pooled features, one picture at a time."""
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    found = []
    model.eval()
    with torch.no_grad():
        for image in images:
            pixels = transform(image.convert("RGB")).unsqueeze(0)
            one, mirrored = (
                model.forward_head(model.forward_features(x), pre_logits=True) for x in (pixels, pixels.flip(3))
            )
            total = (one + mirrored)[0].double()
            found.append(total / total.norm())
    return torch.stack(found)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_embeddings_of_timm(batch_size: int, tmp_path: Path) -> None:
    model, images = small_model(), pictures(tmp_path)
    model.train()
    found = verification_embeddings(model, images, Preprocessing.of_pretrained(model), FeaturePass(batch_size))
    assert model.training
    assert (found.shape, found.dtype) == ((6, model.num_features), torch.float32)
    expected = by_hand(model, [row["image"] for row in images.test])
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)


def test_embeddings_of_transformers(tmp_path: Path) -> None:
    model: Any = with_processor(tmp_path / "model", *PROCESSORS["plain"])
    images = pictures(tmp_path / "faces")
    found = verification_embeddings(model, images, Preprocessing.of_pretrained(model), FeaturePass(num_workers=0))
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    pixels = processor(images=[row["image"] for row in images.test], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        total = sum(model.eval().vit(x).last_hidden_state[:, 0] for x in (pixels, pixels.flip(3))).double()
    torch.testing.assert_close(found.double(), total / total.norm(dim=1, keepdim=True), rtol=0, atol=2e-6)


def test_a_picture_and_its_mirror_image_are_one(tmp_path: Path) -> None:
    model = small_model()
    images = pictures(tmp_path / "one", (32, 32))
    for name in NAMES:
        (tmp_path / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(tmp_path / "one" / name) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other" / name)
    preprocessing = replace(Preprocessing.of_pretrained(model, 32), crop_pct=1.0)  # or the crop is off by half a pixel
    found, mirrored = (
        verification_embeddings(model, each, preprocessing) for each in (images, load_images(str(tmp_path / "other")))
    )
    torch.testing.assert_close(found, mirrored, rtol=0, atol=2e-6)


def test_each_picture_passes_once(tmp_path: Path) -> None:
    files(tmp_path, NAMES, (40, 40))
    lines = ["a/1.png,a/2.png,1", "a/1.png,b/1.png,0", "b/1.png,b/2.png,1", "b/2.png,a/1.png,0"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    model, passed = small_model(), []
    model.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    pairs = open_pairs(tmp_path, str(tmp_path / "pairs.csv"), num_folds=2)
    cosine = pair_cosines(model, pairs, Preprocessing.of_pretrained(model))
    assert sum(passed) == 2 * 4
    of = dict(zip(NAMES, by_hand(model, [Image.open(tmp_path / name) for name in NAMES]), strict=True))
    expected = [float(of[one] @ of[other]) for one, other, _ in (line.split(",") for line in lines)]
    assert cosine == pytest.approx(expected, abs=5e-6)
    assert cosine.dtype == np.float64


def test_zero_and_broken_embeddings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, images = small_model(), pictures(tmp_path)
    preprocessing = Preprocessing.of_pretrained(model)
    for parameter in model.parameters():
        parameter.data.zero_()
    found = verification_embeddings(model, images, preprocessing)
    assert not found.any()
    assert "6 of 6 pictures have a zero embedding; its cosines are 0" in caplog.text
    model = small_model("linear")  # a cosine head looks itself
    next(model.parameters()).data.fill_(torch.nan)
    with pytest.raises(ValueError, match="the model gives NaN or infinity for images in rows 0 to 5, expected numbers"):
        verification_embeddings(model, images, preprocessing)
    with pytest.raises(ValueError, match="the pass is one of 2 processes, expected one; drop shard"):
        verification_embeddings(model, images, preprocessing, FeaturePass(shard=Shard(0, 2)))


def test_folds_are_looked_at_before_a_pass() -> None:
    check_folds(np.array([True, False] * 4), 4)
    with pytest.raises(ValueError, match="fold 1 of 2 has 2 pairs of one person among 2, expected both kinds"):
        check_folds(np.array([True, True, False, False]), 2)
    with pytest.raises(ValueError, match="4 pairs came, expected a number that 3 folds"):
        check_folds(np.array([True, False] * 2), 3)


@pytest.mark.slow
@pytest.mark.skipif(not LFW.is_dir(), reason="../shared/data/lfw is not there")
def test_pairs_of_lfw_agree_with_scikit_learn(tmp_path: Path) -> None:
    lines = (LFW / "pairs.txt").read_text().splitlines()[1:]
    few = [line for fold in range(10) for kind in range(2) for line in lines[600 * fold + 300 * kind :][:2]]
    (tmp_path / "pairs.txt").write_text("\n".join(["10\t2", *few]))
    pairs = open_pairs(LFW, str(tmp_path / "pairs.txt"))
    model: Any = timm.create_model("resnet18_cifar.cos_60_cifar100", pretrained=True)
    cosine = pair_cosines(model, pairs, Preprocessing.of_pretrained(model))
    embedding = by_hand(model, [row["image"] for row in pairs.images.test])
    expected = (embedding[pairs.first] * embedding[pairs.second]).sum(dim=1).numpy()
    assert cosine == pytest.approx(expected, abs=5e-6)
    found = verify_pairs(cosine, pairs.same, num_folds=pairs.num_folds)
    false, true, _ = roc_curve(pairs.same, cosine, drop_intermediate=False)
    assert found.auc == pytest.approx(auc(false, true), abs=1e-12)
    assert found.auc > 0.6  # faces of one person are more alike even for features of CIFAR
    assert verify_pairs(cosine, pairs.same, rates=[0.05, 0.2]).tar == pytest.approx(
        {rate: true[false <= rate + 1e-9].max() for rate in (0.05, 0.2)}, abs=1e-12
    )
    assert cosify.load("resnet18_cifar.cos_60_cifar100").num_features == embedding.shape[1]
