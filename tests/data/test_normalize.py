import pytest
import torch

from cosify.data import Normalization

CPU = torch.device("cpu")


def test_statistics_equal_those_of_all_pixels() -> None:
    images = torch.randint(0, 256, (5000, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = Normalization.of_images(images)
    pixels = images.double() / 255
    assert found.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-12)
    assert found.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-9)
    normalized = found.on(CPU)(images)
    assert normalized.dtype == torch.float32
    assert normalized.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (normalized.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-4


def test_constant_images_give_zeros() -> None:
    images = torch.full((2, 1, 3, 3), 7, dtype=torch.uint8)
    assert Normalization.of_images(images).on(CPU)(images).abs().max() < 1e-5


def test_pretrained_numbers_are_averaged_for_grey() -> None:
    assert Normalization.of_pretrained((0.1, 0.2, 0.6), (0.2, 0.3, 0.4), 3).mean == (0.1, 0.2, 0.6)
    grey = Normalization.of_pretrained((0.1, 0.2, 0.6), (0.2, 0.3, 0.4), 1)
    assert grey.mean == pytest.approx((0.3,))
    assert grey.std == pytest.approx((0.3,))
