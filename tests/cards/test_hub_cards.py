"""The folders in hub_cards: what they say is what their files say, and what their weights do."""

import ast
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

import cosify
from cosify.cards.collection import rendered
from cosify.data import Preprocessing, load_images, load_splits
from cosify.evaluation import FeaturePass, cache_features, transfer
from cosify.evaluation.logistic_probe import LAMBDAS
from cosify.hub import load
from cosify.hub.contents import CARD, EVALUATION_RESULTS
from cosify.hub.publish import check_folder, files_to_publish
from cosify.models.published import backbones, backbones_folder
from tests.data.folders import CIFAR100
from tests.loopback_hub import LoopbackHub
from tests.processes import run_python

ROOT = backbones_folder()
NAMES = sorted(path.parent.name for path in ROOT.glob("*/facts.yaml"))
NUMBER = re.compile(r"(?<![\w.-])[-+]?\d+(?:\.\d+)?(?![\w])")
each = pytest.mark.parametrize("name", NAMES)


def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / name / "evaluation.json").read_text(encoding="utf-8"))["models"][0]
    return found


@each
def test_the_card_is_what_its_files_say(name: str) -> None:
    for path, text in rendered(ROOT / name).items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is not what its files say; run make cards"


def test_no_number_of_a_card_is_typed() -> None:
    """A card is what `rendered` makes of the files, so that each of its numbers is in one, or in these texts."""
    package = files("cosify")
    template = package.joinpath("cards/template.md").read_text(encoding="utf-8")
    texts = [re.sub(r"\{\{.*?\}\}|\{%.*?%\}|```.*?```", "", template, flags=re.DOTALL)]
    for module in ("cards/card.py", "cards/info.py", "evaluation/tables.py"):
        nodes = ast.walk(ast.parse(package.joinpath(module).read_text(encoding="utf-8")))
        texts += [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    told = {
        "percentiles and intervals": {"10", "90", "95", "99", "15"},
        "of the paper: Eqs. (11), (14), Tables 3, 4a, 4b, the kappa to transfer": {"11", "14", "3", "60"},
        "the grid, [e^-2, e^5]": {"20", "-2", "5"},
        "of the table of class sizes: Table 7, Kang et al. 2020, Menon et al. 2021, tau": {
            "7",
            "100",
            "2020",
            "2021",
            "1",
        },
    }
    typed = {number for text in texts for number in NUMBER.findall(text)}
    assert typed <= set().union(*told.values())


def test_what_is_shipped_is_listed_and_what_is_not_published_is_not_said_to_be() -> None:
    assert sorted(backbones()) == NAMES
    listed = timm.list_models("*cos*", pretrained=True)
    assert [name for name in NAMES if "cos" in name] == sorted(listed)
    rows = cosify.list_backbones()
    printed = repr(rows)
    published = json.loads((ROOT / "published.json").read_text(encoding="utf-8"))
    assert set(published) <= set(NAMES)
    assert printed.count("hub: ") == len(published)
    assert [row.name for row in rows] == NAMES
    for name, row in zip(NAMES, rows, strict=True):
        assert name in printed
        assert f"{100 * results(name)['accuracy']:.1f}" in printed
        measured = results(name)["scan"]
        assert (row.kappa, row.head) == (measured["head_kappa"], "softmax" if "softmax" in name else "cosine")
        trained = (200, "zh-plus/tiny-imagenet") if name.endswith("tinyin200") else (100, "uoft-cs/cifar100")
        assert (row.accuracy, row.num_classes, row.data) == (results(name)["accuracy"], *trained)
        assert row.probes == {task: each["probe"]["top1"] for task, each in results(name)["transfer"].items()}
        assert row.num_bytes == (ROOT / name / "model.safetensors").stat().st_size
        assert f"{row.num_bytes / 1e6:.1f}" in printed


@each
def test_a_name_opens_the_weights_that_were_measured(name: str) -> None:
    model, measured = timm.create_model(name, pretrained=True), results(name)
    (head,) = cosify.find_heads(model).values() or (None,)
    assert (head is None) == (measured["scan"]["head"] == "softmax")
    if head is not None:
        assert float(head.kappa) == pytest.approx(measured["scan"]["head_kappa"], rel=1e-6)
    assert model.num_classes == measured["scan"]["num_classes"] == len(model.pretrained_cfg["label_names"])
    assert model.num_features == measured["scan"]["dim"]


@each
def test_what_goes_up_is_small_complete_and_knows_no_machine(name: str) -> None:
    paths = files_to_publish(ROOT / name)
    assert {path for path in (ROOT / name).rglob("*") if path.is_file()} == set(paths)
    for path in paths:
        assert path.stat().st_size <= 8e6
        if path.suffix not in (".safetensors", ".png"):
            assert re.search(r"/(home|root|tmp|work|Users)/", path.read_text(encoding="utf-8")) is None, path


@each
def test_the_hub_finds_what_it_reads(name: str) -> None:
    card, measured = ModelCard.load(ROOT / name / CARD), results(name)
    data = card.data.to_dict()
    assert data["library_name"] == "timm"
    assert data["pipeline_tag"] == "image-classification"
    assert {"timm", "transformers", "cosify"} <= set(data["tags"])
    assert data["license"]
    assert data["datasets"]
    assert card.data.eval_results[0].metric_value == round(measured["accuracy"], 4)
    (entry,) = parse_eval_result_entries(yaml.safe_load((ROOT / name / EVALUATION_RESULTS).read_text()))
    assert entry.value == round(100 * measured["accuracy"], 2)
    for heading in ("Use", "Which one do I want", "Results", "Training", "Limits", "Citation"):
        assert f"\n## {heading}\n" in card.text


@pytest.mark.slow
@each
def test_readers_agree(name: str) -> None:
    readers = check_folder(ROOT / name)
    assert len(readers) == (2 if name.startswith("resnet18_cifar") else 4)


@pytest.mark.slow
def test_the_weights_give_the_probe_on_digits_that_the_card_says(tmp_path: Path) -> None:
    name = "resnet18_cifar.cos_60_cifar100"
    model, expected = load(name), results(name)["transfer"]["digits-train"]
    cache = cache_features(
        model, load_images("digits:train"), Preprocessing.of_pretrained(model), tmp_path, FeaturePass()
    )
    chosen = [value for value in LAMBDAS if any(value == pytest.approx(x) for x in expected["probe"]["lambdas"])]
    again = transfer(cache, lambdas=chosen)
    one_image = 1.5 / expected["probe"]["num_test"]  # another processor rounds otherwise
    assert again.probe.top1 == pytest.approx(expected["probe"]["top1"], abs=one_image)
    assert again.knn_top1 == pytest.approx(expected["knn_top1"], abs=one_image)


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR100.is_dir(), reason="../shared/data/cifar100 is not there")
def test_the_weights_give_the_accuracy_that_the_card_says(tmp_path: Path) -> None:
    """Of one model, for it takes a minute."""
    name = "resnet18_cifar.cos_ls_cifar100"
    model = load(name)
    images = load_splits(str(CIFAR100)).only("test")
    cache = cache_features(model, images, Preprocessing.of_pretrained(model), tmp_path, FeaturePass(32))
    assert cache.correct.mean() == pytest.approx(results(name)["accuracy"], abs=5e-4)  # processors round differently


@pytest.mark.slow
@pytest.mark.parametrize(  # one with a rejector, one without, one without a cosine head: the others have their code
    "name",
    [
        "resnet18_cifar.cos_ls_cifar100",
        "tf_efficientnet_lite0.cos_60_in1k_ft_tinyin200",
        "resnet18_cifar.softmax_cifar100",
    ],
)
def test_the_code_of_a_card_runs_against_a_hub(name: str, tmp_path: Path) -> None:
    push = f"import cosify; cosify.hub.publish.check_folder = lambda folder: (); cosify.push({str(ROOT / name)!r}, "
    repo_id = yaml.safe_load((ROOT / name / "facts.yaml").read_text(encoding="utf-8"))["repo_id"]
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name / CARD).read_text(encoding="utf-8"), flags=re.DOTALL)
    rejects = (ROOT / name / "rejector.json").is_file()
    assert len(blocks) == 2 + rejects
    image = "import PIL.Image; image = PIL.Image.effect_noise((40, 40), 60)\n"
    with LoopbackHub().running() as hub:
        environment = hub.environment(str(tmp_path / "cache"))
        run_python("-c", f"{push}{repo_id!r}, check=cosify.cards.check_card)", **environment)
        uploaded = set(hub.repositories[repo_id].files())
        assert uploaded == {str(path.relative_to(ROOT / name)) for path in files_to_publish(ROOT / name)}
        printed = run_python("-c", image + "".join(blocks), **environment)
    labels = timm.create_model(name, pretrained=True).pretrained_cfg["label_names"]
    first, second, *third = printed.splitlines()[-2 - rejects :]
    assert all("score" in line and "threshold 0." in line for line in third)
    label, probability = first.rsplit(maxsplit=1)
    assert label in labels
    assert f"'label': '{label}'" in second
    assert 1 / len(labels) < float(probability) <= 1
