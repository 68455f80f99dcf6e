"""The one process group of these tests."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from tests.gpu.device import CUDA


@pytest.fixture(scope="module")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Be a world of one process, over NCCL on a GPU."""
    place = torch.device("cuda", torch.cuda.current_device()) if CUDA else None  # also starts CUDA
    store = f"file://{tmp_path_factory.mktemp('group')}/store"
    dist.init_process_group("nccl" if CUDA else "gloo", init_method=store, rank=0, world_size=1, device_id=place)
    yield
    dist.destroy_process_group()
