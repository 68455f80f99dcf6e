import pytest
import torch

from cosify.data import ImageSet, Shard, epoch_seed, eval_batches, num_train_batches, train_batches


def numbered(num: int) -> ImageSet:
    """A set whose labels are the row numbers."""
    return ImageSet(torch.arange(num, dtype=torch.uint8).reshape(-1, 1, 1, 1), torch.arange(num))


def rows(batches: object) -> list[list[int]]:
    found = []
    for images, labels in batches:  # type: ignore[attr-defined]
        assert images.flatten().tolist() == labels.tolist()
        found.append(labels.tolist())
    return found


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def test_training_batches_are_full_and_without_repetition() -> None:
    found = rows(train_batches(numbered(103), 10, epoch=0, seed=3))
    assert [len(batch) for batch in found] == [10] * 10
    assert len(set(flat(found))) == 100
    assert flat(found) != sorted(flat(found))


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {str(rows(train_batches(numbered(50), 10, epoch=e, seed=s))) for e in range(3) for s in range(3)}
    assert len(orders) == 9
    assert str(rows(train_batches(numbered(50), 10, epoch=2, seed=1))) in orders


def test_two_ranks_see_the_batches_of_one() -> None:
    whole = rows(train_batches(numbered(50), 20, epoch=1, seed=0))
    ranks = [rows(train_batches(numbered(50), 10, epoch=1, seed=0, shard=Shard(rank, 2))) for rank in (0, 1)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == whole


@pytest.mark.parametrize(("num", "world_size"), [(50, 1), (50, 3), (2, 3), (64, 2)])
def test_evaluation_sees_each_sample_once(num: int, world_size: int) -> None:
    found = [rows(eval_batches(numbered(num), 8, Shard(rank, world_size))) for rank in range(world_size)]
    assert sorted(row for part in found for row in flat(part)) == list(range(num))
    sizes = [sum(map(len, part)) for part in found]
    assert max(sizes) - min(sizes) <= 1


def test_too_few_samples() -> None:
    message = (
        r"30 training samples do not fill one batch of 32 \(16 on each of 2 processes\), .*; use --batch-size 15 or"
    )
    with pytest.raises(ValueError, match=message):
        num_train_batches(30, 16, 2)
    assert num_train_batches(32, 16, 2) == 1


def test_seeds_differ_and_suit_torch() -> None:
    seeds = {epoch_seed(s, e, r) for s in (0, 1, 123_456_789_012) for e in range(5) for r in range(3)}
    assert len(seeds) == 45
    for seed in seeds:
        torch.Generator().manual_seed(seed)
