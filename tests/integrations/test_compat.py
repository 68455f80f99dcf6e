"""Without a private name of timm or transformers: imports work, one warning, an error where the name is needed."""

import importlib
import logging
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import timm

import cosify
from cosify.integrations import compat, install
from cosify.integrations.on_import import on_import
from tests.processes import blank_python

TIMM = [name for name in compat.NAMES if name.startswith("timm")]
CREATING = TIMM[:2]
OF_TIMM = (compat.SOURCE, compat.CFGS)  # without which its own create_model does not work


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_said", set())


def take_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compat.find(name)
    assert found is not None
    monkeypatch.delattr(*found)


@pytest.mark.parametrize("name", TIMM)
def test_installing_without_a_private_name_of_timm(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    model = timm.create_model("test_resnet", head="cos", num_classes=3)
    folder, plain = cosify.save(model, tmp_path), timm.models.resnet.test_resnet(num_classes=4)
    take_away(name, monkeypatch)
    with caplog.at_level(logging.WARNING, logger="cosify"):
        install()
        install()
    said = [record.getMessage() for record in caplog.records]
    if name.endswith("save_config_for_hf"):
        assert not said  # only saving needs it
        with pytest.raises(compat.MissingNameError, match=r"save_config_for_hf is missing in timm .*upgrade cosify"):
            cosify.save(model, tmp_path)
    else:
        assert len(said) == 1
        assert f"{name} is missing in timm {timm.__version__}" in said[0]
    if name in CREATING:
        with pytest.raises(compat.MissingNameError, match=rf"{name} is missing .*call cosify.convert\(model\)"):
            cosify.load(folder)
    elif name not in OF_TIMM:
        assert cosify.find_heads(cosify.load(folder))
    assert cosify.find_heads(cosify.convert(plain))


def test_creating_without_the_moment_before_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away("timm.models._builder.load_pretrained", monkeypatch)
    with pytest.raises(compat.MissingNameError, match=r"load_pretrained is missing in timm"):
        timm.create_model("test_resnet", head="cos")


WITHOUT_ANY = """
import sys
import timm.models, transformers.modeling_utils
NAMES = {names}
for name in NAMES:
    parts = name.split(".")
    modules = [part for part in parts[:-1] if part.islower()]
    owner = sys.modules[".".join(modules)]
    for part in parts[len(modules):-1]:
        owner = getattr(owner, part)
    delattr(owner, parts[-1])
import torch
import cosify.functional, cosify
from transformers import AutoModelForCausalLM
import transformers.models.auto.modeling_auto
cosify.install()
kappa = cosify.functional.ls_kappa(torch.eye(4), torch.eye(4))
head = cosify.CosineLinear(4, 3)
head(torch.randn(2, 4)).sum().backward()
model = timm.models.resnet.test_resnet(num_classes=4)
print(type(cosify.convert(model).fc).__name__)
"""


def test_imports_without_any_private_name() -> None:
    names = [name for name in compat.NAMES if "._registry." not in name]  # without these timm has no models
    done = subprocess.run(
        [blank_python(), "-c", WITHOUT_ANY.format(names=names)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "CosineLinear\n"
    for name in names:
        assert done.stderr.count(f"{name} is missing") == (not name.endswith("save_config_for_hf")), name


@pytest.mark.parametrize("method", ["post_init", "_initialize_weights"])
def test_loading_without_a_private_name_of_transformers(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    folder = cosify.save(cosify.convert(transformers.ViTForImageClassification(config)), tmp_path)
    take_away(f"transformers.modeling_utils.PreTrainedModel.{method}", monkeypatch)
    with pytest.raises(compat.MissingNameError, match=rf"PreTrainedModel.{method} is missing in transformers"):
        cosify.load(folder)


def test_an_error_of_ours_breaks_no_import_of_the_user(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: ModuleType) -> None:
        raise ImportError("no such name")

    (tmp_path / "imported_later.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    on_import("imported_later", fails)
    assert importlib.import_module("imported_later").answer == 42
    assert "cosify cannot add itself to imported_later (ImportError: no such name)" in caplog.text
    on_import("imported_later", fails)
    assert len(caplog.records) == 2


def test_private_names_are_used_in_one_file() -> None:
    import re

    package = Path(cosify.__file__).parent
    pattern = re.compile(r"timm\.models\._|transformers[a-z_.]*\._[a-z]|torch\._C\.")
    users = [str(f.relative_to(package)) for f in package.rglob("*.py") if pattern.search(f.read_text("utf-8"))]
    assert users == ["integrations/compat.py"]
