"""The record of a run's data in config.json, and its comparison with the data of a resumed run."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from cosify.data import (
    Fingerprint,
    PipelineSettings,
    Preprocessing,
    Splits,
    Survey,
    choose_pipeline,
    load_splits,
    long_tailed,
)
from cosify.errors import InputError
from cosify.settings.training import RunArguments
from cosify.training.progress import logger
from cosify.training.run_folder import read_config

Found = TypeVar("Found")


@dataclass(frozen=True)
class DataRecord:
    """What must not change between the start of a run and its end.

    Attributes:
        pipeline: `"device"` or `"workers"`; the default augmentation follows from it.
        preprocessing: what the network that the run began from expects of its images.
        fingerprint: of the data.
        survey: of the images, if the pipeline was chosen by it; not stored.
        left_out: number of files and folders that gave no rows, as in `Splits`; stored, and not compared.
    """

    pipeline: Literal["device", "workers"]
    preprocessing: Preprocessing
    fingerprint: Fingerprint
    survey: Survey | None = None
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, args: RunArguments, splits: Splits, settings: PipelineSettings, expects: Preprocessing) -> "DataRecord":
        """Return the record of a new run; for a resumed run, read its record and compare the data with it.

        Args:
            args: the settings; `resume` names the run whose record counts.
            splits: as they will be trained on.
            settings: how images become batches.
            expects: what the network expects of its images.

        Raises:
            ValueError: if the data are not those that the run was started with, or cannot be read.
        """
        config: dict[str, Any] = {} if args.resume is None else read_config(args.resume)
        pipeline, survey = config.get("pipeline"), None
        if pipeline is None:
            pipeline, survey = choose_pipeline(splits, settings, expects)
        now = Fingerprint.of_data(args.data, splits)
        if "fingerprint" in config:
            changes = Fingerprint.of_record(config["fingerprint"]).changes(now)
            if changes:
                raise InputError(
                    f"data {args.data!r} are not those that run {args.resume} was started with: {'; '.join(changes)};"
                    " put them back as they were, or start a new run"
                )
        elif args.resume is not None:
            logger.warning(
                "run %s was started by an earlier version, which recorded nothing of its data: whether they are still"
                " the same cannot be checked",
                args.resume,
            )
        return cls(pipeline, expects, now, survey, splits.left_out)

    def config(self) -> dict[str, Any]:
        """Return the entries of config.json."""
        return {
            "pipeline": self.pipeline,
            "preprocessing": asdict(self.preprocessing),
            "fingerprint": self.fingerprint.record(),
            "left_out": self.left_out,
        }


def load_data(args: RunArguments) -> Splits:
    """Return the splits that a run trains and tests on, before any image is decoded."""
    splits = load_splits(
        args.data,
        image_column=args.image_column,
        label_column=args.label_column,
        test_split=args.test_split,
        streaming=args.streaming,
        num_train=args.num_train,
    )
    return as_trained(splits, vars(args))


def as_trained(splits: Splits, settings: Mapping[str, Any]) -> Splits:
    """Return the splits as the settings of a run have them: long-tailed, or with a part of the training images.

    Raises:
        ValueError: if there are too few images for that.
    """
    if settings.get("imbalance") is not None:
        splits = long_tailed(splits, settings["imbalance"])
    return splits if settings.get("limit_train") is None else splits.limit_train(settings["limit_train"])


def from_main(accelerator: Any, make: Callable[[], Found]) -> Found:
    """Return on every rank what `make` returns on the main process, or raise its error there."""
    from accelerate.utils import broadcast_object_list

    answer: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            answer = [make()]
        except Exception as error:
            answer = [error]
    broadcast_object_list(answer)
    if isinstance(answer[0], Exception):
        raise answer[0]
    found: Found = answer[0]
    return found
