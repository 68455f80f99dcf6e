"""The part of a set that is held out: how many of each class, and never a class whole."""

import math

import pytest
import torch

from cosify.data import held_out_mask


def test_every_class_gives_its_share() -> None:
    labels = torch.arange(700) % 7
    held = held_out_mask(labels, 0.2, seed=1)
    assert torch.bincount(labels[held]).tolist() == [20] * 7
    assert not torch.equal(held, held_out_mask(labels, 0.2, seed=2))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_no_class_is_held_out_whole(share: float) -> None:
    labels = torch.cat([torch.arange(20).repeat_interleave(10), torch.arange(20, 50), torch.tensor([50, 50])])
    for seed in range(5):
        held = held_out_mask(labels, share, seed)
        kept = torch.bincount(labels[~held], minlength=51)
        assert kept.min() >= 1, "a class that is never trained on counts as wrong for ever"
        assert kept[20:50].tolist() == [1] * 30
        of_the_large = torch.bincount(labels[held], minlength=51)[:20]
        assert bool(((of_the_large - 10 * share).abs() <= 1).all())


def test_a_mask_without_small_classes_has_the_size_that_it_says() -> None:
    labels = torch.randint(5, (203,), generator=torch.Generator().manual_seed(0))
    for share in (0.1, 0.2, 0.75):
        assert int(held_out_mask(labels, share, seed=0).sum()) == math.floor(share * 203)


def test_classes_of_one_sample_alone_are_refused() -> None:
    with pytest.raises(ValueError, match="none of 50 samples of 50 classes can be held out, expected two of some"):
        held_out_mask(torch.arange(50), 0.2, seed=0)
