"""`import cosify` is quick, touches transformers only when the program does, and the lab only when it is asked for."""

import subprocess
import time
from pathlib import Path

import pytest

import cosify
from cosify import extras
from tests.processes import environment, run_python
from tests.warm import PYTHON

TIMED = """
import sys, time
import torch, timm
start = time.perf_counter()
import cosify
spent = time.perf_counter() - start
heavy = ("transformers", "datasets", "accelerate", "matplotlib", "sklearn", "rich", "jinja2")
heavy = [name for name in heavy if name in sys.modules]
heavy += [name for name in sys.modules if name.split(".")[:2] in (["cosify", "data"], ["cosify", "evaluation"])]
assert not heavy, heavy
print(spent)
"""
IN_LAB = ("data", "training", "evaluation", "plots", "cards")


def test_import_is_quick_and_light() -> None:
    spent = []
    for _ in range(3):
        spent.append(float(run_python("-c", TIMED)))
        if spent[-1] < 1.0:
            return
        time.sleep(1)
    raise AssertionError(f"import cosify took {spent} seconds beside torch and timm, expected less than 1")


@pytest.mark.slow
def test_order_of_imports_does_not_matter() -> None:
    for first, second in (("cosify", "transformers"), ("transformers", "cosify")):
        code = f"""
import {first}, {second}
from transformers import PreTrainedModel
assert hasattr(PreTrainedModel.post_init, "cosify_original")
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING as mapping
config = AutoConfig.for_model("cosified")
assert type(config) in mapping.keys(), type(config)
"""
        run_python("-c", code)


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    ["timm", "cosify", "cosify.models", "cosify.hub", "cosify.integrations.timm", "cosify.integrations.transformers"],
)  # fmt: skip
def test_timm_learns_of_the_head_whatever_comes_first(first: str) -> None:
    code = f"""
import {first}
import cosify, timm
assert cosify.find_heads(timm.create_model("test_resnet", head="cos"))
assert "resnet18_cifar.cos_ls_cifar100" in timm.list_models("*cos*", pretrained=True)
"""
    run_python("-c", code)


def test_nothing_heavy_comes_before_it_is_asked_for() -> None:
    code = """
import sys
import cosify
from cosify.__main__ import COMMANDS, main
main(["--help"])
for name in COMMANDS:
    main([name, "--help"])
assert not {"torch", "timm", "numpy", "rich", "transformers"} & set(sys.modules)
"""
    done = subprocess.run([PYTHON, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_model_type_is_known_to_who_imports_its_class_first() -> None:
    code = """
from cosify.integrations.cosified import CosifiedConfig, CosifiedForImageClassification
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING as mapping
assert mapping[CosifiedConfig] is CosifiedForImageClassification
assert type(AutoConfig.for_model("cosified")) is CosifiedConfig
"""
    run_python("-c", code)


def test_public_names() -> None:
    assert cosify.__all__ == sorted(cosify.__all__)
    assert all(hasattr(cosify, name) for name in cosify.__all__)
    assert cosify.functional.__all__ == sorted(cosify.functional.__all__)
    assert set(cosify.__all__) | set(IN_LAB) | {"heads", "hub", "models", "__version__"} <= set(dir(cosify))
    assert all(hasattr(cosify, name) for name in dir(cosify))
    assert cosify.Rejector is cosify.evaluation.Rejector
    assert cosify.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="module 'cosify' has no attribute 'Reject'"):
        cosify.Reject  # noqa: B018


WITHOUT_LAB = """
import importlib.util, cosify
from cosify import extras
find = importlib.util.find_spec
extras.find_spec = lambda name: None if name in ("sklearn", "rich") else find(name)
asked = [
    "cosify.Rejector", "cosify.data", "from cosify.evaluation import cache_features", "import cosify.training",
    "from cosify import plots", "from cosify import Rejector", "import cosify.cards", "import cosify.data.classes",
]
for code in asked * 2:
    try:
        exec(code)
    except ImportError as error:
        print(type(error).__name__, error)
assert all(hasattr(cosify, name) for name in dir(cosify) if name != "Rejector")
from cosify.__main__ import main
main(["scan", "m"])
"""


def test_what_is_of_the_lab_says_how_to_get_it() -> None:
    with pytest.raises(AssertionError) as caught:
        run_python("-c", WITHOUT_LAB)
    message = "this part of cosify needs rich, sklearn, expected the packages of its lab; run pip install 'cosify[lab]'"
    lines = [line for line in str(caught.value).splitlines() if "cosify[lab]" in line]
    assert lines == [f"MissingExtraError {message}"] * 16 + [f"error: {message}"]
    assert "Traceback" not in str(caught.value)


def test_a_folder_in_the_way_is_not_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert extras.missing_from_lab() == []
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(extras, "LAB", ("no_such_package", "sys", "json", "nothing"))
    assert extras.missing_from_lab() == ["no_such_package", "nothing"]


def test_the_lab_is_what_pyproject_says() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11 and later
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [line.partition(">=")[0] for line in project["dependencies"]] == [
        "torch",
        "timm",
        "safetensors",
        "huggingface-hub",
    ]
    called = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
    lab = [line.partition(">=")[0] for line in project["optional-dependencies"]["lab"]]
    assert sorted(lab) == sorted(called.get(name, name) for name in extras.LAB)
