"""Facts of a published model that no run knows: licences, names, purpose, limits."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from cosify.errors import InputError
from cosify.files import write_whole
from cosify.hub.publish import check_repo_id

USES = {
    "rejection": "tell wrong predictions and outliers by the cosine",
    "classification": "classify",
    "transfer": "features for another task",
    "baseline": "compare with a stock softmax",
}


FORM = """\
# What no run knows of a model that is to be published. Fill in each line; cosify card says what is missing.
repo_id:            # OWNER/NAME on the hub
license:            # of the weights, an id of the hub such as apache-2.0
dataset_id:         # of the training data on the hub, such as uoft-cs/cifar100
dataset_name:       # for people, such as CIFAR-100
dataset_split: test # that accuracy was measured on
dataset_license:    # a sentence: what is known of it
use:                # {uses}
limits:             # what it cannot do, and for whom it is a risk: sentences, in lines that begin with a dash
siblings:           # folders of the same family, this one too, to stand side by side; leave empty for a model alone
base_model:         # weights it started from, as --model takes them; leave empty for weights from scratch
base_license:       # of these, and of what they came from, a sentence
"""


def write_form(file: Path) -> None:
    """Write a facts.yaml to fill in.

    Args:
        file: a new file.

    Raises:
        ValueError: if it exists.
    """
    if file.exists():
        raise InputError(f"{file} exists, expected a new file: facts that were written are not replaced; name another")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, FORM.format(uses=", ".join(f"{use} ({what})" for use, what in USES.items())))


@dataclass(frozen=True)
class Facts:
    """Facts that no run knows.

    Attributes:
        repo_id: `OWNER/NAME` on the hub.
        license: of the weights, an id of the hub.
        dataset_id: on the hub.
        dataset_name: for people.
        dataset_license: what is known of it, a sentence.
        use: one of `USES`.
        limits: sentences on limits and risks.
        siblings: names of the folders of the same family, this one too; empty for a model alone.
        dataset_split: that accuracy was measured on.
        base_model: weights it started from, as --model takes them; None for weights from scratch.
        base_license: of these, and of what they came from, a sentence.
    """

    repo_id: str
    license: str
    dataset_id: str
    dataset_name: str
    dataset_license: str
    use: str
    limits: tuple[str, ...]
    siblings: tuple[str, ...] = ()
    dataset_split: str = "test"
    base_model: str | None = None
    base_license: str | None = None

    @classmethod
    def read(cls, path: Path) -> "Facts":
        """Read facts.yaml.

        Raises:
            ValueError: if a fact is missing, unknown, empty or of the wrong type.
        """
        import yaml

        try:
            found: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
            raise InputError(f"{path} cannot be read ({type(error).__name__}), expected the facts of a card") from error
        if not isinstance(found, dict):
            raise InputError(f"{path} holds a {type(found).__name__}, expected lines such as 'license: apache-2.0'")
        known = {entry.name: entry for entry in fields(cls)}
        missing = [name for name, entry in known.items() if entry.default is MISSING and not found.get(name)]
        if found.get("base_model") and not found.get("base_license"):
            missing.append("base_license")
        unknown = sorted(set(found) - set(known), key=str)
        wrong = [f"lacks {missing}"] * bool(missing) + [f"has unknown {unknown}"] * bool(unknown)
        if wrong:
            raise InputError(f"{path} {' and '.join(wrong)}, expected {sorted(known)}; complete it")
        found = {name: value for name, value in found.items() if value is not None}  # keys of the form left empty
        for name, value in found.items():
            lines = value if name in ("siblings", "limits") else [value]
            if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
                raise InputError(f"{name} in {path} is {value!r}, expected text, or a list of texts; change it")
        if found["use"] not in USES:
            raise InputError(f"use in {path} is {found['use']!r}, expected one of {sorted(USES)}")
        try:
            check_repo_id(found["repo_id"])
        except InputError as error:
            raise InputError(f"repo_id in {path}: {error}") from error
        return cls(**{**found, "siblings": tuple(found.get("siblings", ())), "limits": tuple(found["limits"])})

    def check_start(self, run: Mapping[str, Any]) -> None:
        """Raise a ValueError if a run started from weights that the facts do not name.

        Args:
            run: its config.json.
        """
        if self.base_model is None and (run["script"] != "TrainArguments" or run["arguments"]["pretrained"]):
            raise InputError(
                "base_model is missing in facts.yaml, but the run started from other weights, expected their name; add"
                " base_model and base_license"
            )
