"""One of several processes that fill a cache together."""

import sys
from pathlib import Path

import torch

from cosify.data import Shard, load_splits
from cosify.evaluation import FeaturePass, cache_features


def main(folder: str) -> None:
    from tests.evaluation.test_features import PREPROCESSING, small_model

    torch.distributed.init_process_group("gloo")
    shard = Shard(torch.distributed.get_rank(), torch.distributed.get_world_size())
    images = load_splits("digits").only("test", 70)
    run = FeaturePass(batch_size=16, shard=shard, wait=torch.distributed.barrier)
    assert len(cache_features(small_model(), images, PREPROCESSING, Path(folder), run)) == 70
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
