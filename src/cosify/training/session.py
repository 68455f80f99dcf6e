"""What a run needs before its network: processes, seed, run folder, data."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosify.data import (
    Data,
    PipelineSettings,
    Preprocessing,
    Shard,
    num_train_batches,
    open_data,
    short_name,
)
from cosify.errors import InputError
from cosify.folders import new_output
from cosify.integrations import compat
from cosify.log_level import set_log_level
from cosify.settings import resolved
from cosify.settings.training import RunArguments
from cosify.training.checkpoint import kept_config
from cosify.training.data_record import DataRecord, from_main, load_data
from cosify.training.run_folder import RunFolder, read_config

logger = logging.getLogger("cosify")

SMOKE_EPOCHS = 10
WORK_OF_MAIN = timedelta(days=20)  # fits and figures take hours; torch counts in ms, which beyond 24 days need 64 bits


@dataclass(frozen=True)
class Session:
    """An opened run.

    Attributes:
        accelerator: of Accelerate.
        args: the settings.  batch_size is that of one process; it is adapted if the run is resumed with another number.
        folder: of the run.
        data: both splits, as batches.
        shard: rank of this process and number of processes.
        record: of the data.
        kept: config.json of a run that goes on from a checkpoint; empty for any other.
    """

    accelerator: Any
    args: RunArguments
    folder: RunFolder
    data: Data
    shard: Shard
    record: DataRecord
    kept: Mapping[str, Any]

    @classmethod
    def open(
        cls,
        args: RunArguments,
        name: str,
        preprocessing: Preprocessing,
        check_names: Callable[[Sequence[str]], None] | None = None,
    ) -> "Session":
        """Start the processes, seed them, make the run folder (or open that of a resumed run), and load the data.

        Args:
            args: the settings.
            name: what a new run folder is named after.
            preprocessing: what the network expects; a run that goes on from a checkpoint keeps what is recorded.
            check_names: called with the names of the classes before there is a checkpoint; what it raises ends the run.

        Raises:
            ValueError: for data or settings that do not work; the message says what to change.
            OSError: if the run folder is in use or cannot be written.
        """
        from accelerate.utils import ProjectConfiguration, set_seed

        _show_lines()
        _refuse_deepspeed()
        if args.mixed_precision == "fp16" and not torch.cuda.is_available():
            raise InputError("mixed_precision is 'fp16', which needs CUDA; use bf16 or no on this machine")
        accelerator = start_processes(
            timedelta(minutes=args.wait_minutes),
            mixed_precision=args.mixed_precision,
            log_with=_tracker(args),
            # TensorBoard's tracker wants a folder now; that of the run is known only when the processes are.
            project_config=ProjectConfiguration(logging_dir="runs"),
        )
        slow = args.mixed_precision == "bf16" and accelerator.device.type == "cpu" and not cpu_has_bf16()
        if slow and accelerator.is_main_process:
            logger.warning(
                "mixed_precision is 'bf16' on a CPU without instructions for it, about ten times as slow as float32;"
                " use --mixed-precision no on this machine"
            )
        if _asked_for("FSDP") and accelerator.distributed_type != "FSDP" and accelerator.is_main_process:
            logger.warning("FSDP shards the weights on GPUs alone; here each process holds all of them (DDP)")
        set_seed(args.seed)
        shard = Shard(accelerator.process_index, accelerator.num_processes)
        if args.resume is not None:
            args = replace(args, batch_size=_batch_size_of(args, shard.world_size))
        import datasets

        if not on_terminal(accelerator):
            datasets.disable_progress_bars()
        with accelerator.local_main_process_first():  # the others then find the prepared files in the cache of datasets
            splits = load_data(args)
        kept = from_main(accelerator, lambda: kept_config(args.resume))
        if "preprocessing" in kept:
            preprocessing = Preprocessing.of_record(kept["preprocessing"])
        if check_names is not None and not kept:
            check_names(splits.label_names)
        num_train_batches(splits.num_train, args.batch_size * args.accumulate, shard.world_size)  # or an error
        settings = PipelineSettings(args.augment, args.transform, args.pipeline, args.num_workers)
        record = from_main(accelerator, lambda: DataRecord.of(args, splits, settings, preprocessing))
        # Only now: a wrong name of the data must not replace an earlier run.
        folder = _folder(accelerator, args, name, record)
        data = open_data(
            splits,
            replace(settings, pipeline=record.pipeline),
            preprocessing,
            data=args.data,
            device=accelerator.device,
            show_progress=on_terminal(accelerator),
            survey=record.survey,
        )
        return cls(accelerator, args, folder, data, shard, record, kept)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files."""
        return bool(self.accelerator.is_main_process)

    def all_sum(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks; on one process the tensor itself."""
        if self.shard.world_size == 1:
            return values
        summed: Tensor = self.accelerator.reduce(values, reduction="sum")
        return summed

    def describe(self, model: nn.Module) -> dict[str, Any]:
        """Return what the settings became: entries of config.json."""
        data, config = self.data, getattr(model, "pretrained_cfg", {})
        return {
            "model": config.get("architecture", type(model).__name__),
            "augment": data.augmentation,
            "normalization": asdict(data.normalization),
            "image_shape": list(data.image_shape),
            "num_train": data.num_train,
            "num_test": data.num_test,
            "num_classes": len(data.label_names),
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "num_trained": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        }

    def write_config(self, more: Mapping[str, Any]) -> None:
        """Complete config.json with what the settings became."""
        if self.is_main:
            self.folder.write_config({**_config(self.args, self.shard.world_size, self.record), **more})


def start_processes(wait: timedelta = WORK_OF_MAIN, **settings: Any) -> Any:
    """Return Accelerate's object of this process, after joining the others if a launcher started several.

    Args:
        wait: how long a process waits for another one until it gives up; by default for what the main one does alone.
        **settings: of the `Accelerator`.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, is_initialized
    from accelerate.utils import InitProcessGroupKwargs

    precision = settings.get("mixed_precision")
    if is_initialized() and precision not in (None, AcceleratorState().mixed_precision):
        # Accelerate keeps the first precision of a process; transformers' Trainer forgets it in the same way.  What is
        # known of the processes goes as well: under FSDP it would be read wrongly.
        compat.require(compat.FORGET_PRECISION)(reset_partial_state=True)
    # Without `cpu`, processes on the CPU run as if each were alone (accelerate 1.15).
    return Accelerator(
        cpu=not torch.accelerator.is_available(), kwargs_handlers=[InitProcessGroupKwargs(timeout=wait)], **settings
    )


def smoke_settings(args: Any) -> Any:
    """Return the settings, with data and epochs of the smoke test if `smoke` is set, whose weights are random."""
    if not args.smoke:
        return args
    plain = min(args.mix_off_epochs, SMOKE_EPOCHS - 1)  # a recipe's may be of a longer run
    return replace(args, data="synthetic", epochs=SMOKE_EPOCHS, mix_off_epochs=plain, freeze_norms=False)


def on_terminal(accelerator: Any) -> bool:
    """Return whether this process may draw: the main one on a terminal, or in a notebook with ipywidgets."""
    from rich import get_console

    console = get_console()
    draws = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    return bool(accelerator.is_main_process) and draws


def device_of_one(command: str) -> torch.device:
    """Return the device of a command that is one process; an InputError if it was started on several."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(
            f"{command} was started on {os.environ['WORLD_SIZE']} processes, expected one; run it without a launcher"
        )
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    assert device is not None
    return device


def _config(args: RunArguments, world_size: int, record: DataRecord) -> dict[str, Any]:
    return {
        "script": type(args).__name__,
        "arguments": resolved(args),
        "world_size": world_size,
        **record.config(),
    }


def _batch_size_of(args: RunArguments, world_size: int) -> int:
    """Return the batch size of one process for which that of all together stays as it was."""
    assert args.resume is not None
    together = args.batch_size * int(read_config(args.resume)["world_size"])
    if together % world_size != 0:
        fitting = [count for count in range(1, min(together, 64) + 1) if together % count == 0]
        raise InputError(
            f"the run has {together} images in a batch of all processes, which {world_size} cannot share, expected a"
            f" number of processes among {fitting}; resume with one of these"
        )
    return together // world_size


def _folder(accelerator: Any, args: RunArguments, name: str, record: DataRecord) -> RunFolder:
    """Create or open the run folder on the main process, which locks it; all ranks get its path, or the error."""
    made: list[RunFolder] = []

    def make() -> tuple[Path, Path | None]:
        if args.resume is not None:
            made.append(RunFolder.open(args.resume))
        else:
            path = new_output(args.output, short_name(args.data), name)
            config = _config(args, accelerator.num_processes, record)
            made.append(RunFolder.create(path, config, overwrite=args.overwrite))
        return made[0].path, made[0].place

    where = from_main(accelerator, make)
    return made[0] if made else RunFolder(*where)


def _tracker(args: RunArguments) -> str | None:
    from accelerate.tracking import get_available_trackers

    available = [str(getattr(each, "value", each)) for each in get_available_trackers()]
    if args.tracker == "auto":
        return "tensorboard" if "tensorboard" in available else None
    if args.tracker == "none":
        return None
    if args.tracker not in available:
        raise InputError(
            f"tracker is {args.tracker!r}, expected auto, none, or one that is installed: {available}; install it, or"
            " change --tracker"
        )
    return args.tracker


def _show_lines() -> None:
    """Show the log lines of a run in a program without logging, such as a notebook."""
    from rich import get_console

    lines = logging.getLogger("cosify")
    if not lines.hasHandlers():
        # A notebook shows what goes to stderr as if it were an error.
        handler = logging.StreamHandler(sys.stdout if get_console().is_jupyter else None)
        handler.setFormatter(logging.Formatter("%(message)s"))
        lines.addHandler(handler)
        set_log_level()


def _asked_for(feature: str) -> bool:
    """Return whether `accelerate launch` was told to use a feature, by a flag or its configuration."""
    return os.environ.get(f"ACCELERATE_USE_{feature}", "false").lower() == "true"


def _refuse_deepspeed() -> None:
    if _asked_for("DEEPSPEED"):
        raise InputError(
            "accelerate was told to use DeepSpeed, which the trainer does not support, expected DDP or FSDP2; start"
            " with accelerate launch --config_file scripts/accelerate/fsdp2.yaml, which shards as ZeRO-3 does"
        )


def cpu_has_bf16() -> bool:
    """Return whether oneDNN can multiply bf16 on this CPU; if not, torch converts each number."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
