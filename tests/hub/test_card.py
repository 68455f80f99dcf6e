"""Cards of a small family that is trained and evaluated here: each number from a file, each missing fact an error."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from huggingface_hub import parse_eval_result_entries

import cosify
from cosify.command import export, plot
from cosify.evaluation import FeatureBank
from cosify.evaluation.model_digest import model_digest
from cosify.hub.card import CardInfo, render
from cosify.hub.collect import add_evaluation, add_finetuned, collect, render_all, rendered
from cosify.hub.facts import USES, Facts
from cosify.training import FinetuneArguments, TrainArguments, finetune, parse_arguments, train
from scripts import evaluate

pytestmark = pytest.mark.slow  # two trainings and an evaluation

FACTS = {
    "repo_id": "ORG/digits-net",
    "license": "apache-2.0",
    "dataset_id": "ORG/digits",
    "dataset_name": "Digits",
    "dataset_license": "CC-BY 4.0",
    "use": "rejection",
    "siblings": ["cos_ls", "softmax"],
    "limits": ["Digits of one country."],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two collected models."""
    base = tmp_path_factory.mktemp("family")
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", ["evaluate.py", "as", "typed"])
    for name, head in (("cos_ls", "cos"), ("softmax", "linear")):
        settings = {"epochs": 6, "limit_train": 400, "batch_size": 64, "head": head, "output": str(base / name)}
        result = train(TrainArguments(**settings))
        export(result)
        plot(result)
    for name, use in (("cos_ls", "rejection"), ("softmax", "baseline")):
        facts = base / f"{name}.yaml"
        facts.write_text(yaml.safe_dump({**FACTS, "use": use}))
        collect(base / name, facts, base / "cards" / name, half=True)
    models = [str(base / "cards" / name) for name in ("cos_ls", "softmax")]
    limits = {"limit": 200, "limit_train": 300, "num_lambdas": 2, "resamples": 100}
    output = str(base / "eval")
    evaluate.main(evaluate.EvaluateArguments(models=models, transfer=["digits:train"], output=output, **limits))
    patch.undo()
    for name in ("cos_ls", "softmax"):
        add_evaluation(base / "eval", name, base / "cards" / name)
    tuned = {"model": models[0], "epochs": 1, "limit_train": 200, "output": str(base / "tuned")}
    finetune(FinetuneArguments(**tuned))
    add_finetuned(base / "tuned", base / "cards" / "cos_ls")
    return base / "cards"


def test_cards_are_written_and_say_what_the_files_say(root: Path) -> None:
    written = render_all(root)
    assert {path: path.read_text(encoding="utf-8") for path in written} == rendered(root)
    cards = [path for path in written if path.name == "README.md"]
    assert [card.parent.name for card in cards] == ["cos_ls", "softmax"]
    text = cards[0].read_text(encoding="utf-8")
    model = json.loads((root / "cos_ls" / "evaluation.json").read_text())["models"][0]
    tuned = json.loads((root.parent / "tuned" / "metrics.jsonl").read_text().splitlines()[-1])
    last = json.loads((root / "cos_ls" / "metrics.jsonl").read_text().splitlines()[-1])
    for said in (
        f"Top-1 on 200 test images: {100 * model['accuracy']:.2f} %",
        f"mean {last['kappa_mean']:.2f}, median {last['kappa_median']:.2f}",
        f"| {model['miss']['z_max']['ap']:.3f} |",
        f"{100 * model['transfer']['digits-train']['probe']['top1']:.1f} |",
        "matrices and filters as float16",
        f"| digits | softmax | 1 | {100 * tuned['test_accuracy']:.2f} ± ",
        "- Digits of one country.",
        "datasets/ORG/digits",
    ):
        assert said in text, said
    assert str(root.parent) not in text.replace(model_command(root), "")
    command = re.search(r"python (scripts/train.py .*)", text)
    assert command is not None
    repeated = parse_arguments(TrainArguments, shlex.split(command[1])[1:])
    ran = json.loads((root.parent / "cos_ls" / "config.json").read_text())["arguments"]
    assert (repeated.limit_train, repeated.epochs, repeated.seed) == (ran["limit_train"], ran["epochs"], ran["seed"])
    front = yaml.safe_load(text.split("---")[1])
    (index,) = front["model-index"]
    assert index["results"][0]["metrics"][0]["value"] == round(model["accuracy"], 4)
    assert (front["license"], front["datasets"], front["library_name"]) == ("apache-2.0", ["ORG/digits"], "timm")
    (entry,) = parse_eval_result_entries(yaml.safe_load((root / "cos_ls/.eval_results/accuracy.yaml").read_text()))
    assert (entry.dataset_id, entry.value) == ("ORG/digits", round(100 * model["accuracy"], 2))
    assert "## Kappa" not in cards[1].read_text(encoding="utf-8")
    assert re.findall(r"\{\{|\{%|None|nan", text.split("```bibtex")[0]) == []


def model_command(root: Path) -> str:
    return str(json.loads((root / "cos_ls" / "evaluation.json").read_text())["command"])


def test_every_use_and_sibling_is_shown(root: Path) -> None:
    infos = [CardInfo.of_folder(root / name) for name in ("cos_ls", "softmax")]
    text = render(infos[0], infos)
    assert "| cos_ls (this one) | rejection |" in text
    assert "| softmax | baseline | - |" in text
    assert USES["rejection"] in text


def test_half_the_bytes_change_few_labels_and_are_what_was_evaluated(root: Path) -> None:
    model = timm.create_model(f"local-dir:{root / 'cos_ls'}", pretrained=True).eval()
    whole = cosify.load(root.parent / "cos_ls" / "export")
    images = torch.randn(64, *model.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (model(images).argmax(1) == whole(images).argmax(1)).float().mean() > 0.9
    bank = FeatureBank.open(root.parent / "eval" / "banks" / "cos_ls" / "test")
    assert bank.info.key.model == model_digest(model) != model_digest(whole)
    folders = (root / "cos_ls", root.parent / "cos_ls" / "export")
    half, full = ((folder / "model.safetensors").stat().st_size for folder in folders)
    assert half < 0.6 * full


def test_what_is_missing_raises(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "facts.yaml"
    for change, message in (
        ({"license": None}, r"lacks \['license'\]"),
        ({"limits": []}, r"lacks \['limits'\]"),
        ({"more": 1}, r"unknown \['more'\]"),
        ({"use": "all"}, "use in .* is 'all', expected one of"),
    ):
        path.write_text(yaml.safe_dump({**FACTS, **change}))
        with pytest.raises(ValueError, match=message):
            Facts.read(path)
    with pytest.raises(ValueError, match=r"lacks config\.json, run\.json"):
        CardInfo.of_folder(tmp_path)
    with pytest.raises(ValueError, match=r"has the models .* expected 'other' among them"):
        add_evaluation(root.parent / "eval", "other", tmp_path)
    with pytest.raises(ValueError, match=r"tuned is a FinetuneArguments of '.*cos_ls', expected a run of softmax"):
        add_finetuned(root.parent / "tuned", root / "softmax")
    shutil.copytree(root / "cos_ls", tmp_path / "alone")
    (tmp_path / "alone" / "facts.yaml").write_text(yaml.safe_dump(FACTS))
    with pytest.raises(ValueError, match=r"alone names the siblings \['cos_ls', 'softmax'\]"):
        render_all(tmp_path)


def test_numbers_of_other_weights_are_refused(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cos_ls"
    shutil.copytree(root / "cos_ls", folder)
    collect(root.parent / "cos_ls", root / "cos_ls" / "facts.yaml", folder)  # in float32 this time
    with pytest.raises(ValueError, match=r"evaluation\.json in .* is of other weights"):
        CardInfo.of_folder(folder)
    add_evaluation(root.parent / "eval", "cos_ls", folder)
    with pytest.raises(ValueError, match=r"finetune\.json in .* is of other weights"):
        CardInfo.of_folder(folder)
