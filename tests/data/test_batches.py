import pytest
import torch

from cosify.data import Shard, eval_rows, mixed_seed, num_train_batches, own_rows, training_order

ALONE = Shard()


def train_rows(num: int, batch_size: int, *, epoch: int, seed: int, shard: Shard = ALONE) -> list[list[int]]:
    order = training_order(torch.zeros(num, dtype=torch.int64), epoch=epoch, seed=seed)
    return [
        own_rows(order, batch, batch_size, shard).tolist()
        for batch in range(num_train_batches(num, batch_size, shard.world_size))
    ]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def test_training_batches_are_full_and_without_repetition() -> None:
    found = train_rows(103, 10, epoch=0, seed=3)
    assert [len(batch) for batch in found] == [10] * 10
    assert len(set(flat(found))) == 100
    assert flat(found) != sorted(flat(found))
    order = training_order(torch.zeros(103, dtype=torch.int64), epoch=0, seed=3)
    assert sorted(order.tolist()) == list(range(103)), "some row never comes"


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {str(train_rows(50, 10, epoch=e, seed=s)) for e in range(3) for s in range(3)}
    assert len(orders) == 9
    torch.manual_seed(7)
    assert str(train_rows(50, 10, epoch=2, seed=1)) in orders


def test_order_depends_on_labels_only_if_balanced() -> None:
    labels = torch.arange(50) % 3
    plain, other = (training_order(each, epoch=0, seed=0) for each in (labels, torch.zeros_like(labels)))
    assert torch.equal(plain, other)


def test_two_ranks_see_the_batches_of_one() -> None:
    whole = train_rows(50, 20, epoch=1, seed=0)
    ranks = [train_rows(50, 10, epoch=1, seed=0, shard=Shard(rank, 2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == whole


def test_balanced_order_sees_classes_and_their_rows_equally_often() -> None:
    labels = torch.tensor([0] * 2700 + [2] * 270 + [3] * 30)  # class 1 has no row
    drawn = torch.cat([training_order(labels, epoch=epoch, seed=0, balance=1.0) for epoch in range(3)])
    assert len(drawn) == 9000
    counts = labels[drawn].bincount()
    assert counts[1] == 0
    # 3000 each; the standard deviation is 45.
    assert all(2800 < int(count) < 3200 for count in counts[[0, 2, 3]])
    of_rare = drawn[labels[drawn] == 3].bincount()[-30:]  # 100 each; the standard deviation is 10
    assert of_rare.min() > 55
    assert of_rare.max() < 150


@pytest.mark.parametrize("balance", [0.25, 0.5, 1.0])
def test_classes_are_drawn_by_a_power_of_their_size(balance: float) -> None:
    sizes = [6400, 1600, 400, 100]
    labels = torch.tensor([label for label, size in enumerate(sizes) for _ in range(size)])
    drawn = labels[training_order(labels, epoch=0, seed=0, balance=balance)].bincount().tolist()
    total = sum(size ** (1 - balance) for size in sizes)
    for size, count in zip(sizes, drawn, strict=True):
        share = size ** (1 - balance) / total
        deviation = (share * (1 - share) * len(labels)) ** 0.5
        assert abs(count - share * len(labels)) < 4 * deviation


@pytest.mark.parametrize(("num", "world_size"), [(50, 1), (50, 3), (2, 3), (64, 2), (0, 2)])
def test_evaluation_sees_each_sample_once(num: int, world_size: int) -> None:
    found = [[list(rows) for rows in eval_rows(num, 8, Shard(rank, world_size))] for rank in range(world_size)]
    assert [row for part in found for row in flat(part)] == list(range(num))
    assert all(1 <= len(batch) <= 8 for part in found for batch in part)
    sizes = [sum(map(len, part)) for part in found]
    assert max(sizes) - min(sizes) <= 1


def test_too_few_samples() -> None:
    message = (
        r"30 training samples do not fill one batch of 32 \(16 on each of 2 processes\), .*; use --batch-size 15 or"
    )
    with pytest.raises(ValueError, match=message):
        num_train_batches(30, 16, 2)
    assert num_train_batches(32, 16, 2) == 1
    assert num_train_batches(63, 16, 2) == 1


def test_seeds_differ_and_suit_torch() -> None:
    seeds = {mixed_seed(s, e, r) for s in (0, 1, 123_456_789_012) for e in range(5) for r in range(3)}
    assert len(seeds | {mixed_seed(0), mixed_seed(0, 0), mixed_seed(1, 1), mixed_seed(11)}) == 49
    for seed in seeds:
        assert 0 <= seed < 2**63
        torch.Generator().manual_seed(seed)


def test_seeds_are_the_same_in_every_process_and_version() -> None:
    # blake2b of "(0, 1)"; a run that is resumed elsewhere must go on with the same order.
    assert mixed_seed(0, 1) == 9_017_893_900_260_303_862
