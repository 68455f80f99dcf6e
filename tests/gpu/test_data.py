"""The pipeline of small images lies on the device, and gives there what it gives on the CPU."""

import pytest
import torch
from torch import Tensor

from cosify.data import Augment, DeviceData, PipelineSettings, Preprocessing, Shard, Splits, load_splits, open_data
from tests.gpu.device import DEVICE, on_gpu

pytestmark = on_gpu
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_splits("synthetic")


def opened(splits: Splits, augment: Augment, device: torch.device) -> DeviceData:
    settings = PipelineSettings(augment=augment, pipeline="device")
    data = open_data(splits, settings, Preprocessing(16, 16), data="synthetic", device=device)
    assert isinstance(data, DeviceData)
    return data


def epoch(data: DeviceData, number: int = 0) -> list[tuple[Tensor, Tensor]]:
    return list(data.train_batches(32, epoch=number, seed=5, shard=Shard()))


def test_batches_equal_those_of_the_cpu(splits: Splits) -> None:
    data, expected = opened(splits, "none", DEVICE), opened(splits, "none", CPU)
    assert data.normalization == expected.normalization
    for found, other in ((epoch(data), epoch(expected)), (data.test_batches(64), expected.test_batches(64))):
        for (images, labels), (other_images, other_labels) in zip(found, other, strict=True):
            assert (images.device.type, labels.device.type) == (DEVICE.type, DEVICE.type)
            assert torch.equal(labels.cpu(), other_labels)
            torch.testing.assert_close(images.cpu(), other_images, rtol=1e-6, atol=1e-6)
    assert len(epoch(data)) == 10


@pytest.mark.parametrize("augment", ["crop", "crop-flip"])
def test_augmented_batches_are_shifts_that_follow_from_the_seed(splits: Splits, augment: Augment) -> None:
    data, plain = opened(splits, augment, DEVICE), opened(splits, "none", DEVICE)
    torch.manual_seed(1)
    found = epoch(data)
    torch.manual_seed(2)
    for (images, labels), (again, _), (_, same_labels) in zip(found, epoch(data), epoch(plain), strict=True):
        assert images.device.type == DEVICE.type
        assert torch.equal(images, again)
        assert torch.equal(labels, same_labels)
    assert not torch.equal(found[0][0], epoch(plain)[0][0])
    assert not torch.equal(found[0][0], epoch(data, 1)[0][0])
