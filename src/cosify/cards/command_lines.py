"""The commands behind the numbers of a card, as others would type them: with names in place of local paths."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosify.data import BUILT_IN, base_and_split, name_of
from cosify.errors import InputError
from cosify.settings import as_flag, command_line
from cosify.settings.evaluation import EvaluateArguments
from cosify.training import CosifyArguments, FinetuneArguments, TrainArguments

COMMANDS = {
    "TrainArguments": ("train", TrainArguments),
    "CosifyArguments": ("adapt", CosifyArguments),
    "FinetuneArguments": ("finetune", FinetuneArguments),
}


def run_for_others(run: Mapping[str, Any], data: str | None = None, model: str | None = None) -> dict[str, Any]:
    """Return a run's config.json with names instead of paths, and with defaults resolved that depend on a name.

    Args:
        run: its config.json.
        data: what others call the data; None for the last part of its path.
        model: what others call the weights that it started from; None for the last part of their path.
    """
    arguments = dict(run["arguments"])
    base, split = base_and_split(arguments["data"])
    if base not in BUILT_IN:
        arguments["data"] = (name_of(base) if data is None else data) + (f":{split}" if split else "")
    if run["script"] == "TrainArguments" and arguments["model"] is None:
        arguments["model"] = run["model"]
        arguments["model_kwargs"] = [f"{name}={value!r}" for name, value in run["model_kwargs"].items()]
        arguments["image_size"] = run["image_shape"][-1]
    elif run["script"] != "TrainArguments":
        arguments["model"] = Path(arguments["model"]).name if model is None else model
    return {**run, "arguments": arguments, **({"start": arguments["model"]} if "start" in run else {})}


def training_command(run: Mapping[str, Any]) -> str:
    """Return the command that repeats a run.

    Args:
        run: its config.json, as `run_for_others` returns it.
    """
    name, kind = COMMANDS[run["script"]]
    processes = [] if run["world_size"] == 1 else ["torchrun", "--nproc_per_node", str(run["world_size"]), "-m"]
    words = ("data",) if name == "train" else ("model", "data")
    return command_line([*processes, "cosify", name], kind, run["arguments"], words)


def data_for_others(data: str) -> str:
    """Return DATA or DATA:SPLIT with a name in place of a path; an id of the hub stays whole."""
    base, split = base_and_split(data)
    named = base if is_hub_id(base) else name_of(base)
    return f"{named}:{split}" if split else named


def is_hub_id(data: str) -> bool:
    """Return whether data are named as `OWNER/NAME` and no folder here is called as the owner."""
    return re.fullmatch(r"\w[\w-]*/\w[\w.-]*", data) is not None and not Path(data).parent.is_dir()


def evaluation_command(record: Mapping[str, Any], name: str) -> str:
    """Return the command of an evaluation for one model alone.

    Args:
        record: its evaluation.json.
        name: of the model.

    Raises:
        ValueError: if an earlier version wrote it, without the settings.
    """
    if "arguments" not in record:
        raise InputError("evaluation.json has no settings, expected those of an evaluation; evaluate again")
    arguments = {key: value for key, value in record["arguments"].items() if key not in ("models", "data")}
    arguments |= {key: [data_for_others(each) for each in arguments[key]] for key in ("ood", "transfer")}
    program = ["cosify", "evaluate", name, data_for_others(record["arguments"]["data"])]
    return command_line(program, EvaluateArguments, arguments)


def comparison_command(protocol: Mapping[str, Any], start: str, name: str, data: str) -> str:
    """Return the command that compares a model with the weights that it began with.

    Args:
        protocol: of transfer.json.
        start: what others call these weights.
        name: of the model.
        data: of the task, as it was typed.
    """
    flags = [word for key, value in protocol.items() if value is not None for word in (as_flag(key), str(value))]
    return shlex.join(["python", "scripts/transfer.py", start, name, "--data", data_for_others(data), *flags])


def verification_command(arguments: Mapping[str, Any], name: str) -> str:
    """Return the command of a verification, with names in place of paths.

    Args:
        arguments: of its verification.json.
        name: of the model.
    """
    words = ["cosify", "verify", name, Path(arguments["data"]).name]
    pairs = None if arguments["pairs"] is None else Path(arguments["pairs"]).name
    flags = {"--pairs": pairs, "--folds": arguments["folds"], "--image-size": arguments["image_size"]}
    return shlex.join(words + [str(word) for flag in flags.items() if flag[1] is not None for word in flag])
