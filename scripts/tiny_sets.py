"""Split Tiny-ImageNet by class, to see what a backbone keeps for classes that it was not cosified on.

    python scripts/tiny_sets.py data/tiny_imagenet --output runs/tiny

SOURCE has train.parquet and test.parquet, or parts of them such as train-00000-of-00002.parquet.  OUTPUT then holds

    tiny150/    150 of the 200 classes, to train and to test on
    tiny50/     the other 50, drawn at random with seed 0: one split, for `scripts/transfer.py`
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cosify.errors import InputError
from cosify.settings import flag

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger("cosify")
LEFT_OUT = 50


@dataclass(frozen=True)
class TinyArguments:
    """Where the pictures lie."""

    source: str = flag("", "Folder of Tiny-ImageNet. Needed.")
    output: str = flag("runs/tiny", "Folder of the sets. Default runs/tiny.")


def main(args: TinyArguments) -> None:
    """Write the sets."""
    import datasets

    from cosify.console import set_up_logging
    from cosify.data import load_splits

    set_up_logging()
    datasets.disable_progress_bars()
    output = Path(args.output)
    splits = load_splits(args.source)
    if len(splits.label_names) <= LEFT_OUT:
        raise InputError(f"{args.source} has {len(splits.label_names)} classes, expected more than {LEFT_OUT}")
    columns = {splits.image_column: "image", splits.label_column: "label"}
    splits = replace(splits, train=splits.train.rename_columns(columns), test=splits.test.rename_columns(columns))
    drawn = np.random.default_rng(0).permutation(len(splits.label_names))
    kept, left_out = np.sort(drawn[LEFT_OUT:]), np.sort(drawn[:LEFT_OUT])
    write(of_classes(splits.train, kept), output / "tiny150" / "train.parquet")
    write(of_classes(splits.test, kept), output / "tiny150" / "test.parquet")
    both = datasets.concatenate_datasets([of_classes(split, left_out) for split in (splits.train, splits.test)])
    write(both, output / "tiny50" / "test.parquet")


def of_classes(rows: "Dataset", classes: np.ndarray) -> "Dataset":
    """Return the rows of some classes, numbered anew in their order."""
    from datasets import ClassLabel

    labels = np.asarray(rows["label"][:])
    chosen = np.flatnonzero(np.isin(labels, classes))
    kind = ClassLabel(names=[rows.features["label"].names[label] for label in classes])
    new = np.searchsorted(classes, labels[chosen]).tolist()
    return rows.select(chosen).select_columns(["image"]).add_column("label", new, feature=kind)


def write(rows: "Dataset", file: Path) -> None:
    """Write rows as parquet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(file)
    logger.info("%s: %d pictures of %d classes", file, len(rows), rows.features["label"].num_classes)


if __name__ == "__main__":
    from cosify.console import Command

    Command(main, TinyArguments, __doc__, words=("source",), needed=("source",)).run()
