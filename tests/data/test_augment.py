import torch

from cosify.data import augmenter, random_crop, random_flip


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

    def lighter_left(mode: str) -> int:
        out = augmenter(mode, 32, seeded())(picture)  # type: ignore[arg-type]
        return int((out[..., :16].float().mean(dim=(1, 2, 3)) > out[..., 16:].float().mean(dim=(1, 2, 3))).sum())

    assert lighter_left("crop") == 0
    assert lighter_left("crop-flip") > 100


def test_none_changes_nothing_and_seeds_decide() -> None:
    original = images()
    assert augmenter("none", 8, seeded())(original) is original
    first, same, other = (augmenter("crop-flip", 8, seeded(seed))(original) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
