"""The published backbones and their names in timm, such as `resnet18_cifar.cos_ls_cifar100`."""

import functools
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import timm.models
from timm.models import PretrainedCfg

from cosify.models.config import read_config

FACTS = "facts.yaml"


@dataclass(frozen=True)
class Backbone:
    """A published backbone, or one that is shipped with the package.

    Attributes:
        name: timm's `architecture.tag`, also of its folder.
        folder: with config.json, card and results; with model.safetensors where that is small enough to ship.
        hub_id: `OWNER/NAME@COMMIT`, None where it is not on the hub.
    """

    name: str
    folder: Path
    hub_id: str | None

    @property
    def is_local(self) -> bool:
        """Whether the weights lie in the folder."""
        return (self.folder / "model.safetensors").is_file()

    @property
    def source(self) -> str:
        """Name that timm opens it by: of the folder if the weights are there, else of the hub."""
        return f"local-dir:{self.folder}" if self.is_local else f"hf-hub:{self.hub_id}"


def backbones_folder() -> Path:
    """Return where the published folders lie: inside an installed package, or `hub_cards` of a checkout."""
    package = Path(str(files("cosify")))
    installed = package / "hub_cards"
    return installed if installed.is_dir() else package.parents[1] / "hub_cards"


@functools.cache
def backbones() -> dict[str, Backbone]:
    """Return the backbones whose weights can be had, by name: those in the folder and those on the hub."""
    import yaml

    found = {}
    for file in sorted(backbones_folder().glob(f"*.*/{FACTS}")):
        folder, facts = file.parent, yaml.safe_load(file.read_text(encoding="utf-8"))
        commit = facts.get("published")
        backbone = Backbone(folder.name, folder, None if commit is None else f"{facts['repo_id']}@{commit}")
        if (folder / "config.json").is_file() and (backbone.is_local or commit is not None):
            found[backbone.name] = backbone
    return found


def register_backbones() -> None:
    """Make `timm.list_models(pretrained=True)` list them, and `timm.get_pretrained_cfg` know their images.

    timm takes tags from the module that defines an architecture, and some of these have an architecture of timm's own:
    so that this writes what `register_model` writes for a tag (timm 1.0.31).
    """
    registry = timm.models._registry
    for backbone in backbones().values():
        architecture, _, tag = backbone.name.partition(".")
        config = read_config(backbone.folder / "config.json")["pretrained_cfg"]
        saved = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
        source = {"file": str(backbone.folder)} if backbone.is_local else {"hf_hub_id": backbone.hub_id}
        cfg = PretrainedCfg(**{**saved, **source, "architecture": architecture, "tag": tag})
        registry._model_pretrained_cfgs[backbone.name] = cfg
        registry._model_has_pretrained.add(backbone.name)
        if backbone.name not in registry._model_with_tags[architecture]:
            registry._model_with_tags[architecture].append(backbone.name)
