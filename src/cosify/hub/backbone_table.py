"""A table of the backbones that can be had by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cosify.hub.contents import EVALUATION, RUN
from cosify.models.binding import CONFIG, WEIGHTS
from cosify.models.config import published_spec, read_config
from cosify.models.published import Backbone, backbones


@dataclass(frozen=True)
class BackboneRow:
    """A backbone that `timm.create_model(name, pretrained=True)` opens, and what was measured of it.

    What the files beside the weights do not say is None, or missing from `probes`.

    Attributes:
        name: timm's `architecture.tag`.
        architecture: of timm, or of cosify.
        head: `"cosine"` or `"softmax"`.
        policy: how kappa was chosen in training, a number or the name of a policy; None for softmax.
        kappa: of the head in evaluation; None for softmax.
        num_classes: that it knows.
        data: on the hub, that it was trained on.
        accuracy: on their test split, in [0, 1].
        probes: accuracy of a linear classifier on frozen features, in [0, 1], by task.
        num_bytes: of the weights.
        license: of the weights, an id of the hub.
        is_local: whether the weights came with the package; others are downloaded on first use.
        hub_id: `OWNER/NAME@COMMIT`; None where it is not on the hub.
    """

    name: str
    architecture: str
    head: str
    policy: float | str | None
    kappa: float | None
    num_classes: int | None
    data: str | None
    accuracy: float | None
    probes: Mapping[str, float]
    num_bytes: int | None
    license: str | None
    is_local: bool
    hub_id: str | None

    @classmethod
    def of_backbone(cls, backbone: Backbone) -> "BackboneRow":
        """Read the files in the folder of a backbone; a result that is missing or damaged leaves gaps."""
        spec = published_spec(backbone.folder / CONFIG)
        evaluation, weights = _contents(backbone, EVALUATION), backbone.folder / WEIGHTS
        measured: Any = (evaluation.get("models") or [{}])[0]
        return cls(
            name=backbone.name,
            architecture=backbone.name.partition(".")[0],
            head="softmax" if spec is None else "cosine",
            policy=None if spec is None else spec.kappa,
            kappa=None if spec is None else spec.kappa_in_evaluation,
            num_classes=backbone.cfg.num_classes,
            data=_contents(backbone, RUN).get("arguments", {}).get("data"),
            accuracy=measured.get("accuracy"),
            probes={task: found["probe"]["top1"] for task, found in measured.get("transfer", {}).items()},
            num_bytes=weights.stat().st_size if backbone.is_local else evaluation.get("measured", {}).get("num_bytes"),
            license=backbone.cfg.license,
            is_local=backbone.is_local,
            hub_id=backbone.hub_id,
        )


class BackboneTable(tuple[BackboneRow, ...]):
    """Rows that show as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        header = ("name", "data", "kappa", "accuracy %", "probe %", "MB", "weights")
        cells = [header, *(_cells(row) for row in self)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
        return "\n".join(line.rstrip() for line in (lines[0], "  ".join("-" * width for width in widths), *lines[1:]))


def list_backbones() -> BackboneTable:
    """Return the backbones that can be had by name, with what was measured of each; printed, they are a table.

    Accuracy is on the test split of the data that it was trained on, the probe a linear one on frozen features; both
    are told with their errors in the card, README.md in the folder or on the hub.  "here" are weights that came with
    the package; the others are downloaded from the hub on first use.
    """
    return BackboneTable(BackboneRow.of_backbone(each) for each in backbones().values())


def _cells(row: BackboneRow) -> tuple[str, ...]:
    where = [*(["here"] if row.is_local else []), *([f"hub: {row.hub_id}"] if row.hub_id is not None else [])]
    return (
        row.name,
        row.data or "-",
        row.head if row.kappa is None else f"{row.kappa:.2f}",
        "-" if row.accuracy is None else f"{100 * row.accuracy:.1f}",
        ", ".join(f"{task} {100 * top1:.1f}" for task, top1 in row.probes.items()) or "-",
        "-" if row.num_bytes is None else f"{row.num_bytes / 1e6:.1f}",
        ", ".join(where),
    )


def _contents(backbone: Backbone, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_config(backbone.folder / name)
    except (OSError, ValueError):
        return {}
    return found
