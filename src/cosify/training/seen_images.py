"""Whether test images are ones that a run has trained on, as far as the run's config.json tells."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cosify.data import Fingerprint, Splits, base_and_split, load_images, load_splits
from cosify.data.folders import TEST_NAMES, VALIDATION_NAMES
from cosify.errors import InputError
from cosify.training.data_record import as_trained
from cosify.training.run_folder import read_config

Config = Mapping[str, Any]


def run_of(spec: str) -> Path:
    """Return the folder of the run that a model is, or is the export of."""
    folder = Path(spec).expanduser().resolve()
    return folder.parent if folder.name == "export" else folder


def config_of(spec: str) -> Config:
    """Return config.json of the run that a model is, or is the export of; of another model one without settings."""
    with suppress(InputError):  # a published folder, a name
        return read_config(run_of(spec))
    return {"arguments": {}}


def load_measured(
    data: str, runs: Sequence[Config], *, image_column: str | None = None, label_column: str | None = None
) -> tuple[Splits, bool]:
    """Return the data to measure models on, and whether they are one split, whole.

    `DATA:SPLIT` is that split as the test split, without a training split.  If a model is a run on this very
    `DATA:SPLIT`, both splits are those of the run: the fifth that it held out, and what it was trained on.

    Args:
        data: as in `load_splits`.
        runs: what `config_of` returns of each model.
        image_column: as in `load_splits`.
        label_column: as there.

    Raises:
        ValueError: as there.
    """
    if base_and_split(data)[1] and not any(_has_divided(run, data, image_column, label_column) for run in runs):
        return load_images(data, image_column=image_column, label_column=label_column, labelled=True), True
    return load_splits(data, image_column=image_column, label_column=label_column), False


def told_part(data: str, is_whole: bool) -> str | None:
    """Return a line that says what of `DATA:SPLIT` is measured; None where no split is named.

    Args:
        data: name of the data that are measured.
        is_whole: as `load_measured` returns it.
    """
    if not base_and_split(data)[1]:
        return None
    if is_whole:
        return f"All of {data} is measured. Scores that are fitted on training images are left out."
    return f"A fifth of each class of {data} is measured, as training on it holds out."


def told_leak(run: Config, data: str, splits: Splits, is_whole: bool) -> str | None:
    """Return a line to warn of test images that a run was, or may have been, trained on; None where none are known.

    Args:
        run: what `config_of` returns.
        data: name of the data that are measured.
        splits: what `load_measured` returns of them.
        is_whole: likewise.
    """
    if "fingerprint" not in run:  # no run, or one of an earlier version
        return None
    own, before = str(run["arguments"]["data"]), Fingerprint.of_record(run["fingerprint"])
    own_split, split, same_base = base_and_split(own)[1], base_and_split(data)[1], _same_base(own, data)
    base = base_and_split(data)[0]
    same = before.train.counts is not None and before.train == Fingerprint.of_data(data, splits).test
    of_train = split == "train" and own_split == ""
    if same or (of_train and _trained_on(base, run, before)):
        return f"These are images that the model was trained on ({own}): expect it to do worse on new ones."
    if of_train and same_base:
        return (
            f"{data} has changed since the model's training, or is other data of the same name: the model may have been"
            " trained on some of these images."
        )
    if split == "" and own_split in TEST_NAMES and _trained_on(f"{base}:{own_split}", run, before):
        return f"The model was trained on four fifths of these images ({own}): expect it to do worse on new ones."
    if own_split and not is_whole and same_base and _canonical(own_split) == _canonical(split):
        try:
            changes = before.changes(Fingerprint.of_data(data, as_trained(splits, run["arguments"])))
        except InputError:
            changes = ["there are fewer training images than then"]
        if changes:
            return (
                f"{data} has changed since the model's training ({'; '.join(changes)}), so that the fifth"
                " that is measured is not the one held out: the model may have been trained on some of these images."
            )
    return None


def _has_divided(run: Config, data: str, image_column: str | None, label_column: str | None) -> bool:
    """Return whether a run was trained on four fifths of `DATA:SPLIT`, maybe under another path."""
    own = str(run["arguments"].get("data", ""))
    own_split, split = base_and_split(own)[1] if own else "", base_and_split(data)[1]
    if own_split == "" or _canonical(own_split) != _canonical(split):
        return False
    if _same_base(own, data):
        return True
    with suppress(InputError):  # data that cannot be divided are others
        splits = load_splits(data, image_column=image_column, label_column=label_column)
        now = Fingerprint.of_data(data, splits)
        return "fingerprint" in run and not Fingerprint.of_record(run["fingerprint"]).changes(now, ("test",))
    return False


def _trained_on(data: str, run: Config, before: Fingerprint) -> bool:
    """Return whether the training images of DATA, as the run's settings have them, are those of its fingerprint."""
    settings = run["arguments"]
    columns = {name: settings.get(name) for name in ("image_column", "label_column")}
    with suppress(InputError):  # it cannot be divided, or has too few images
        now = Fingerprint.of_data(data, as_trained(load_splits(data, **columns), settings)).train
        return now.counts is not None and now == before.train
    return False


def _canonical(split: str) -> str:
    return VALIDATION_NAMES[0] if split in VALIDATION_NAMES else split


def _same_base(one: str, other: str) -> bool:
    first, second = (Path(base_and_split(each)[0]).expanduser().resolve() for each in (one, other))
    return first == second
