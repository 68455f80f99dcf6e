"""Without a private name of timm or transformers: imports work, one warning, an error where the name is needed."""

import ast
import importlib
import logging
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import timm

import cosify
from cosify.integrations import compat
from cosify.integrations.import_watcher import on_import
from cosify.integrations.timm import install
from tests.integrations.tiny_vit import vit
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
    assert len(said) == 1
    assert f"{name} is missing in timm {timm.__version__}" in said[0]
    if name == compat.SAVE_CONFIG:
        with pytest.raises(compat.MissingNameError, match=r"save_config_for_hf is missing in timm .*upgrade cosify"):
            cosify.save(model, tmp_path)
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
import timm.models, transformers.modeling_utils, transformers.trainer, accelerate.state, huggingface_hub.utils._http
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
cosify.integrations.timm.install()
cosify.integrations.transformers.install()
kappa = cosify.functional.ls_kappa(torch.eye(4), torch.eye(4))
head = cosify.CosineLinear(4, 3)
head(torch.randn(2, 4)).sum().backward()
model = timm.models.resnet.test_resnet(num_classes=4)
print(type(cosify.convert(model).fc).__name__)
"""


@pytest.mark.slow
def test_imports_without_any_private_name() -> None:
    names = [name for name in compat.NAMES if "._registry." not in name]  # without these timm has no models
    done = subprocess.run(
        [blank_python(), "-c", WITHOUT_ANY.format(names=names)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "CosineLinear\n"
    for name in names:
        quiet = name in (compat.CLIENT_FACTORY, compat.FORGET_PRECISION)  # asked for when needed
        assert done.stderr.count(f"{name} is missing") == (not quiet), name


@pytest.mark.parametrize("method", ["post_init", "_initialize_weights"])
def test_loading_without_a_private_name_of_transformers(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    folder = cosify.save(cosify.convert(vit()), tmp_path)
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


# Private to torch or to Python, and explained where they stand.
OTHERS = {
    "_C",
    "_are_functorch_transforms_active",
    "_current_graph_task_id",
    "_exit",
    "_is_mkldnn_bf16_supported",
    "_modules",
    "_orig_mod",
    "_version",
}


def private_names(file: Path) -> set[str]:
    """Return what begins with one underscore, is looked up in something else than `self`, and is not made here."""
    found, made = set(), set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            own |= isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            (made if own else found).add(node.attr)
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("cosify"):
            found |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ".py" not in node.value:
            found |= {part for part in node.value.split(".") if part.isidentifier() and "." in node.value}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
            found |= {argument.value for argument in node.args[1:2] if isinstance(argument, ast.Constant)}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            made.add(ast.unparse(node.target))
    return {name for name in found - made - OTHERS if name.startswith("_") and not name.startswith("__")}


def test_private_names_are_used_in_one_file() -> None:
    package = Path(cosify.__file__).parent
    found = {str(file.relative_to(package)): private_names(file) for file in package.rglob("*.py")}
    assert found.pop("integrations/compat.py") >= {"_factory", "_http", "_fingerprint", "_model_args"}
    assert {file: names for file, names in found.items() if names} == {}
