"""Write the sets of faces that the evidence of Table 6 is trained on.

    python scripts/face_sets.py data/celeba299 --lfw data/lfw --output runs/faces

SOURCE holds celeba299.parquet and lfw_match_by_embedding.json, and --lfw holds lfw.parquet.  OUTPUT then holds folders
with a train.parquet and a test.parquet, to which each person with five pictures or more gives one:

    celeba/     the identities of SOURCE that resemble nobody in LFW, without the pictures that show somebody else
    lfw/        all people of LFW, to look at kappa* with many classes
    lfw-K/      K = 1 to 10: LFW without the people of fold K of its View 2, for a model that has seen none of them
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cosify.settings import flag

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger("cosify")
CERTAIN = 0.3  # cosine to the centre of one's identity below which a picture shows somebody else
FOLDS = 10
TESTED = 5  # pictures of a person of whom one tests


@dataclass(frozen=True)
class FaceArguments:
    """Where the pictures lie."""

    source: str = flag("", "Folder of celeba299.parquet. Needed.")
    lfw: str = flag("", "Folder of lfw.parquet. Needed.")
    output: str = flag("runs/faces", "Folder of the sets. Default runs/faces.")


def main(args: FaceArguments) -> None:
    """Write the sets."""
    import datasets

    from cosify.console import set_up_logging

    set_up_logging()
    datasets.disable_progress_bars()
    output = Path(args.output)
    rows = load(Path(args.source) / "celeba299.parquet")
    names = rows.features["label"].names
    similar = set(json.loads((Path(args.source) / "lfw_match_by_embedding.json").read_text(encoding="utf-8"))["ids"])
    labels = np.asarray(rows["label"][:])
    strangers = np.array([name not in similar for name in names])[labels]
    write(rows.select(np.flatnonzero(strangers & (np.asarray(rows["id_cos"][:]) >= CERTAIN))), output / "celeba")
    lfw = load(Path(args.lfw) / "lfw.parquet")
    write(lfw, output / "lfw")
    folds = np.asarray(lfw["view2_fold"][:])
    for fold in range(1, FOLDS + 1):
        write(lfw.select(np.flatnonzero(folds != fold)), output / f"lfw-{fold}")


def load(path: Path) -> "Dataset":
    """Return the rows of a parquet file."""
    from datasets import load_dataset

    loaded: Dataset = load_dataset("parquet", data_files=str(path), split="train")
    return loaded


def write(rows: "Dataset", folder: Path) -> None:
    """Write rows as a training and a test split, with the classes that occur in them."""
    from datasets import ClassLabel

    names = rows.features["label"].names
    present, labels = np.unique(np.asarray(rows["label"][:]), return_inverse=True)
    kind = ClassLabel(names=[names[label] for label in present])
    rows = rows.select_columns(["image"]).add_column("label", labels.tolist(), feature=kind)
    counts = np.bincount(labels)
    _, last = np.unique(labels[::-1], return_index=True)
    held_out = (len(labels) - 1 - last)[counts >= TESTED]
    folder.mkdir(parents=True, exist_ok=True)
    rows.select(np.delete(np.arange(len(rows)), held_out)).to_parquet(folder / "train.parquet")
    rows.select(held_out).to_parquet(folder / "test.parquet")
    logger.info("%s: %d people, %d + %d pictures", folder, len(present), len(rows) - len(held_out), len(held_out))


if __name__ == "__main__":
    from cosify.console import Command

    Command(main, FaceArguments, __doc__, words=("source",), needed=("source", "lfw")).run()
