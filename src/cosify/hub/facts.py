"""What no run knows of a model that is to be published: licences, names, purpose, limits."""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

USES = {
    "rejection": "tell wrong predictions and outliers by the cosine",
    "classification": "classify",
    "transfer": "features for another task",
    "baseline": "compare with a stock softmax",
}


@dataclass(frozen=True)
class Facts:
    """What no run knows.

    Attributes:
        repo_id: `OWNER/NAME` on the hub.
        license: of the weights, an id of the hub.
        dataset_id: on the hub.
        dataset_name: for people.
        dataset_license: what is known of it.
        use: which of `USES`.
        siblings: names of the folders of the same family, this one too.
        limits: sentences on limits and risks.
        base_model: weights it started from, None for weights from scratch.
        base_license: of these, and of what they came from.
        published: commit of the hub repository that holds the folder, None until it is there.
    """

    repo_id: str
    license: str
    dataset_id: str
    dataset_name: str
    dataset_license: str
    use: str
    siblings: tuple[str, ...]
    limits: tuple[str, ...]
    base_model: str | None = None
    base_license: str | None = None
    published: str | None = None

    @classmethod
    def read(cls, path: Path) -> "Facts":
        """Read facts.yaml.

        Raises:
            ValueError: if a fact is missing, unknown or empty.
        """
        import yaml

        try:
            found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ValueError(f"{path} cannot be read ({type(error).__name__}), expected the facts of a card") from error
        known = {entry.name: entry for entry in fields(cls)}
        missing = [name for name, entry in known.items() if entry.default is MISSING and not found.get(name)]
        if found.get("base_model") and not found.get("base_license"):
            missing.append("base_license")
        unknown = sorted(set(found) - set(known))
        if missing or unknown:
            raise ValueError(f"{path} lacks {missing} and has unknown {unknown}, expected {sorted(known)}; complete it")
        if found["use"] not in USES:
            raise ValueError(f"use in {path} is {found['use']!r}, expected one of {sorted(USES)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
        return cls(**values)
