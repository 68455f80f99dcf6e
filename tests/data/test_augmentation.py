import pytest
import torch

from cosify.data import Augmentation, Shard, augment, random_crop, random_flip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(num: int = 400, side: int = 8) -> torch.Tensor:
    return torch.randint(1, 256, (num, 2, side, side), generator=seeded(9)).to(torch.uint8)


def test_crop_is_a_shift_of_each_image_with_black_coming_in() -> None:
    original = images()
    cropped = random_crop(original, 2, seeded())
    assert cropped.dtype == torch.uint8
    shifts = []
    for before, after in zip(original, cropped, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(padded[:, top : top + 8, left : left + 8], after)
        ]
        assert len(found) == 1
        shifts += found
    assert set(shifts) == {(top, left) for top in range(5) for left in range(5)}, "some shift never comes"


def test_flip_mirrors_about_half() -> None:
    original = images()
    flipped = random_flip(original, seeded())
    mirrored = (flipped == original.flip(3)).flatten(1).all(dim=1)
    same = (flipped == original).flatten(1).all(dim=1)
    assert torch.equal(mirrored, ~same)
    assert 150 < int(mirrored.sum()) < 250


def test_digits_are_never_mirrored() -> None:
    # Left half dark, right half light: a shift keeps the light to the right, a mirror image would not.
    picture = torch.zeros(300, 1, 32, 32, dtype=torch.uint8)
    picture[..., 16:] = 200

    def lighter_left(augmentation: Augmentation) -> int:
        out = augment(picture, augmentation, seed=0)
        return int((out[..., :16].float().mean(dim=(1, 2, 3)) > out[..., 16:].float().mean(dim=(1, 2, 3))).sum())

    assert lighter_left("crop") == 0
    assert lighter_left("crop-flip") > 100


def test_none_changes_nothing_and_seeds_decide() -> None:
    original = images()
    assert augment(original, "none", seed=0) is original
    torch.manual_seed(0)
    first = augment(original, "crop-flip", seed=1)
    torch.manual_seed(1)
    assert torch.equal(first, augment(original, "crop-flip", seed=1)), "drawn from the global generator"
    assert not torch.equal(first, augment(original, "crop-flip", seed=2))


@pytest.mark.parametrize(("height", "width", "largest"), [(32, 32, 4), (16, 40, 2), (4, 4, 1)])
def test_shifts_go_up_to_an_eighth_of_the_shorter_side(height: int, width: int, largest: int) -> None:
    # Each pixel holds its row and column, counted from 1: black that came in is 0.
    rows = torch.arange(1, height + 1, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(1, width + 1, dtype=torch.uint8).expand(height, width)
    out = augment(torch.stack([rows, columns]).expand(400, 2, height, width), "crop", seed=0).int()
    middle = out[:, :, height // 2, width // 2] - torch.tensor([height // 2 + 1, width // 2 + 1])
    for shift in middle.unbind(1):
        assert set(shift.tolist()) == set(range(-largest, largest + 1))


@pytest.mark.parametrize("augmentation", ["crop-flip", "crop"])
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_do_what_one_process_would(augmentation: Augmentation, world_size: int) -> None:
    original = images(40)
    whole = augment(original, augmentation, seed=5)
    parts = [
        augment(part, augmentation, 5, Shard(rank, world_size)) for rank, part in enumerate(original.chunk(world_size))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(parts[1], augment(original.chunk(world_size)[1], augmentation, 5))
