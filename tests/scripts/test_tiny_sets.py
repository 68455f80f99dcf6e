"""scripts/tiny_sets.py: classes that train and classes that are left out share no picture."""

from pathlib import Path

import numpy as np
import pytest

from cosify.data import load_images, load_splits
from cosify.errors import InputError
from scripts import tiny_sets


@pytest.mark.slow
def test_classes_are_kept_or_left_out(tmp_path: Path) -> None:
    tiny_sets.main(tiny_sets.TinyArguments("two-digits", str(tmp_path)))
    whole, kept = load_splits("two-digits"), load_splits(str(tmp_path / "tiny150"))
    left_out = load_images(str(tmp_path / "tiny50"))
    assert len(left_out.label_names) == 50
    assert sorted({*left_out.label_names, *kept.label_names}) == sorted(whole.label_names)
    name = np.asarray(whole.label_names)[np.asarray(whole.train[whole.label_column][:])]
    found = np.asarray(kept.label_names)[np.asarray(kept.train["label"][:])]
    assert found.tolist() == [each for each in name if each in kept.label_names], "other labels, or another order"
    assert len(left_out.test) == len(whole.train) + len(whole.test) - len(kept.train) - len(kept.test)


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="digits has 10 classes, expected more than 50"):
        tiny_sets.main(tiny_sets.TinyArguments("digits", str(tmp_path)))
    assert list(tmp_path.iterdir()) == []
