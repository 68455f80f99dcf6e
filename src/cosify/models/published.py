"""The published backbones and their names in timm, such as `resnet18_cifar.cos_ls_cifar100`."""

import difflib
import functools
import json
import logging
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg

from cosify.errors import InputError
from cosify.models.config import read_config

logger = logging.getLogger("cosify")

PUBLISHED = "published.json"  # name -> OWNER/NAME@COMMIT of what is on the hub


@dataclass(frozen=True)
class Backbone:
    """A published backbone, or one that is shipped with the package.

    Attributes:
        name: timm's `architecture.tag`, also of its folder.
        folder: with config.json, card and results; with model.safetensors where that is small enough to ship.
        hub_id: `OWNER/NAME@COMMIT`, None where it is not on the hub.
        cfg: timm's description of its images and classes.
    """

    name: str
    folder: Path
    hub_id: str | None
    cfg: PretrainedCfg

    @property
    def is_local(self) -> bool:
        """Whether the weights lie in the folder."""
        return (self.folder / "model.safetensors").is_file()

    @property
    def source(self) -> str:
        """Name that timm opens it by: of the folder if the weights are there, else of the hub."""
        return f"local-dir:{self.folder}" if self.is_local else f"hf-hub:{self.hub_id}"


def similar_names(name: str) -> list[str]:
    """Return the published backbones and timm models that are spelt most like a name, at most three."""
    known = dict.fromkeys([*backbones(), *timm.list_models(pretrained=True), *timm.list_models()])
    return difflib.get_close_matches(name, known, 3)


def backbones_folder() -> Path:
    """Return where the published folders lie: inside an installed package, or `hub_cards` of a checkout."""
    package = Path(str(files("cosify")))
    installed = package / "hub_cards"
    return installed if installed.is_dir() else package.parents[1] / "hub_cards"


@functools.cache
def backbones() -> dict[str, Backbone]:
    """Return the backbones whose weights can be had, by name: those in the folder and those on the hub.

    A folder that cannot be read is left out with a warning: cosify, which calls this when it is imported, must import.
    """
    root, found, hub_ids = backbones_folder(), {}, {}
    if (root / PUBLISHED).is_file():
        try:
            hub_ids = json.loads((root / PUBLISHED).read_text(encoding="utf-8"))
        except ValueError as error:
            logger.warning("%s cannot be read: %s", root / PUBLISHED, error)
    for config in sorted(root.glob("[!.]*.*/config.json")):
        try:
            backbone = _backbone(config, hub_ids.get(config.parent.name))
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s is left out of the backbones (%s: %s)", config.parent, type(error).__name__, error)
            continue
        if backbone.is_local or backbone.hub_id is not None:
            found[backbone.name] = backbone
    return found


def _backbone(file: Path, hub_id: str | None) -> Backbone:
    config, folder = read_config(file), file.parent
    architecture, _, tag = folder.name.partition(".")
    if config["architecture"] != architecture:
        raise InputError(f"its architecture is {config['architecture']!r}, expected the first part of its name")
    saved: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["pretrained_cfg"].items()}
    saved |= {"architecture": architecture, "tag": tag}
    if (folder / "model.safetensors").is_file():
        saved |= {"source": "local-dir", "file": str(folder)}
    else:
        saved |= {"source": "hf-hub", "hf_hub_id": hub_id}
    return Backbone(folder.name, folder, hub_id, PretrainedCfg(**saved))
