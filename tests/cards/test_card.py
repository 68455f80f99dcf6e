"""Cards of a small family that is trained and evaluated here: each number from a file, each missing fact an error."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from huggingface_hub import parse_eval_result_entries

import cosify
from cosify.cards import CardInfo, check_card
from cosify.cards.card import against_baseline, family_table, render
from cosify.cards.collection import (
    add_evaluation,
    add_finetuned,
    add_transfer,
    add_verification,
    collect,
    render_all,
    rendered,
)
from cosify.cards.command_lines import evaluation_command, run_for_others
from cosify.cards.facts import Facts
from cosify.cards.metadata import front_matter
from cosify.cards.records import Measured
from cosify.cards.same_data import refuse_other_data
from cosify.commands import card as cards
from cosify.commands import evaluate, verify
from cosify.console import parse_arguments
from cosify.console.training import export, plot
from cosify.evaluation import FeatureCache
from cosify.hub import push
from cosify.hub.publish import files_to_publish
from cosify.settings import resolved
from cosify.settings.evaluation import EvaluateArguments
from cosify.training import (
    CosifyArguments,
    FinetuneArguments,
    TrainArguments,
    finetune,
    read_metrics,
    train,
)
from cosify.training import cosify_pretrained as cosify_again
from scripts import transfer
from tests.data.face_pictures import bin_file, png

pytestmark = pytest.mark.slow  # two trainings and an evaluation

LS, SOFTMAX = "resnet10t.cos_ls_digits", "resnet10t.softmax_digits"
FACTS: dict[str, Any] = {
    "repo_id": "ORG/digits-net",
    "license": "apache-2.0",
    "dataset_id": "ORG/digits",
    "dataset_name": "Digits",
    "dataset_license": "CC-BY 4.0",
    "use": "rejection",
    "siblings": [LS, SOFTMAX],
    "limits": ["Digits of one country."],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two runs, of what was collected of them under cards/, an evaluation and a fine-tuning."""
    base = tmp_path_factory.mktemp("family")
    for name, head in ((LS, "cos"), (SOFTMAX, "linear")):
        settings = {"epochs": 6, "limit_train": 400, "batch_size": 64, "head": head, "output": str(base / name)}
        result = train(TrainArguments(**settings))
        export(result)
        plot(result)
    for name, use in ((LS, "rejection"), (SOFTMAX, "baseline")):
        facts = base / f"{name}.yaml"
        facts.write_text(yaml.safe_dump({**FACTS, "use": use}))
        collect(base / name, facts, base / "cards" / name, half=True)
    models = [str(base / "cards" / name) for name in (LS, SOFTMAX)]
    limits = {"limit": 200, "limit_train": 300, "num_lambdas": 2, "resamples": 100}
    output = str(base / "eval")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cosify", "evaluate", *models, "digits", "--limit", "200", "--output", output])
        evaluate.main(evaluate.EvaluateArguments(models=models, transfer=["digits:train"], output=output, **limits))
    for name in (LS, SOFTMAX):
        add_evaluation(base / "eval", name, base / "cards" / name)
    tuned = {"model": models[0], "data": "digits:train", "epochs": 1, "limit_train": 200, "output": str(base / "tuned")}
    finetune(FinetuneArguments(**tuned))
    add_finetuned(base / "tuned", base / "cards" / LS)
    both = [f"start={models[1]}", f"ls={models[0]}"]
    beside = transfer.TransferArguments(models=both, data=["digits:train"], limit=300, output=str(base / "transfer"))
    transfer.main(beside)
    add_transfer(base / "transfer", "ls", base / "cards" / LS)
    return base


@pytest.fixture(scope="module")
def root(base: Path) -> Path:
    return base / "cards"


def test_cards_are_written_and_say_what_the_files_say(base: Path, root: Path) -> None:
    written = render_all(root)
    cards = [path for path in written if path.name == "README.md"]
    assert [card.parent.name for card in cards] == [LS, SOFTMAX]
    text = cards[0].read_text(encoding="utf-8")
    assert text == rendered(root / LS)[cards[0]]
    model = json.loads((root / LS / "evaluation.json").read_text())["models"][0]
    tuned = json.loads((base / "tuned" / "metrics.jsonl").read_text().splitlines()[-1])
    last = json.loads((root / LS / "metrics.jsonl").read_text().splitlines()[-1])
    changed = json.loads((root / LS / "run.json").read_text())["half_precision"]
    for said in (
        f"Top-1 on 200 images of the split test: {100 * model['accuracy']:.2f} %",
        f"mean {last['kappa_mean']:.2f}, median {last['kappa_median']:.2f}",
        f"| {model['miss']['z_max']['ap']:.3f} |",
        f"| {100 * model['transfer']['digits-train']['probe']['top1']:.1f} ± ",
        "matrices and filters as float16 (",
        f"({changed['labels_changed']} of 597 test labels differ from those of float32)",
        f"| digits:train | softmax | 1 | {100 * tuned['test_accuracy']:.2f} ± ",
        "- Digits of one country.",
        "datasets/ORG/digits",
        "licence: CC-BY 4.0. From scratch.",
        f"`cosify evaluate {LS} digits --transfer digits:train --limit-train 300 --limit 200"
        " --num-lambdas 2 --resamples 100`",
        f"`cosify finetune {LS} digits:train --limit-train 200 --epochs 1`",
        f"| {LS} (this one) | rejection |",
        f"| {SOFTMAX} | baseline | - |",
        'ImageOps.exif_transpose(image).convert("L")',
    ):
        assert said in text, said
    assert "pipeline(" not in text, "transformers' processor makes colour of grey"
    assert re.findall(r"\{\{|\{%|None|nan", text.split("```bibtex")[0]) == []
    front = yaml.safe_load(text.split("---")[1])
    (index,) = front["model-index"]
    assert index["results"][0]["metrics"][0]["value"] == round(model["accuracy"], 4)
    assert (front["license"], front["datasets"], front["library_name"]) == ("apache-2.0", ["ORG/digits"], "timm")
    (entry,) = parse_eval_result_entries(yaml.safe_load((root / LS / ".eval_results/accuracy.yaml").read_text()))
    assert (entry.dataset_id, entry.value) == ("ORG/digits", round(100 * model["accuracy"], 2))
    softmax = cards[1].read_text(encoding="utf-8")
    assert "## Kappa" not in softmax
    assert "import cosify" not in softmax, "its folder is plain timm"


def test_the_start_stands_beside_a_model_that_began_with_it(base: Path, root: Path) -> None:
    text = rendered(root / LS)[root / LS / "README.md"]
    measured = json.loads((base / "transfer" / "transfer.json").read_text())["backbones"]
    top1 = {name: 100 * np.mean(runs[0]["digits-train"]["top1"]) for name, runs in measured.items()}
    said = (base / "transfer" / "transfer.md").read_text().splitlines()[-1].split(" | ")[3].rstrip(" |")
    assert f"| digits-train | 10, 300 | {top1['start']:.2f} | {top1['ls']:.2f} | {said} |" in text
    difference, error = (float(each) for each in said.split(" ± "))
    header, _, start, own, softmax = text[text.index("| model | for |") :].splitlines()[:5]
    assert header.endswith("| 10 images a class, digits-train % | MB |")
    assert start.startswith("| start | its start | - | - |")
    assert start.endswith(f"| {top1['start']:.1f} | - |")
    assert f"| {top1['ls']:.1f} ({difference:+.1f} ± {error:.1f}) |" in own
    assert softmax.split(" | ")[-2] == "-"
    assert f"`python scripts/transfer.py start {LS} --data digits:train --per-class 10 --limit 300 --seed 0`" in text


def test_a_comparison_of_other_weights_is_refused(base: Path, root: Path) -> None:
    with pytest.raises(ValueError, match=r"compares \['ls'\] with 'start', expected 'x' among them"):
        add_transfer(base / "transfer", "x", root / LS)
    with pytest.raises(ValueError, match=r"'ls' in .* is another model than"):
        add_transfer(base / "transfer", "ls", root / SOFTMAX)


def test_verification_stands_on_the_card_and_in_the_results(root: Path, tmp_path: Path) -> None:
    for name in (LS, SOFTMAX):
        shutil.copytree(root / name, tmp_path / "cards" / name)
    folder, result = tmp_path / "cards" / LS, tmp_path / "result"
    pairs = bin_file(tmp_path / "pairs.bin", [png(seed, (12, 12)) for seed in range(400)], [True, False] * 100)
    arguments = {"model": str(folder), "data": str(pairs), "folds": 5, "output": str(result)}
    verify.main(verify.VerifyArguments(**arguments))
    at_root = {"name": LS, "root": str(tmp_path / "cards"), "verification": str(result)}
    cards.main(cards.CardArguments(**at_root))
    found = json.loads((result / "verification.json").read_text())["verification"]
    text = rendered(folder)[folder / "README.md"]
    row = f"{100 * found['accuracy']:.2f} ± {100 * found['standard_error']:.2f} | {found['auc']:.4f}"
    share = f"{100 * found['tar']['0.01']:.2f} at 0.01"
    assert f"| pairs.bin | {row} | {100 * found['eer']:.2f} | {share} | 100, 100 |" in text
    assert f"\n`cosify verify {LS} pairs.bin --folds 5`\n" in text
    assert str(tmp_path) not in (folder / "verification.json").read_text()
    assert folder / ".eval_results" / "verification.yaml" not in rendered(folder), "the pairs are not on the hub"

    cards.main(cards.CardArguments(**at_root, dataset="ORG/pairs"))
    render_all(tmp_path / "cards")
    assert len(json.loads((folder / "verification.json").read_text())) == 1, "it replaces the same"
    text = (folder / ".eval_results" / "verification.yaml").read_text()
    (entry,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.task_id) == ("ORG/pairs", "face-verification")
    assert entry.value == round(100 * found["accuracy"], 2)
    assert f"5 folds of 200 pairs, standard error {100 * found['standard_error']:.2f}" in str(entry.notes)
    names = {str(path.relative_to(folder)) for path in files_to_publish(folder)}
    assert {"verification.json", ".eval_results/verification.yaml"} <= names

    with pytest.raises(ValueError, match="the repository is 'pairs', expected OWNER/NAME"):
        add_verification(result, folder, "pairs")
    with pytest.raises(ValueError, match=rf"result is of another model than .*{SOFTMAX}; run cosify verify"):
        add_verification(result, tmp_path / "cards" / SOFTMAX)
    (entry,) = json.loads((folder / "verification.json").read_text())
    (folder / "verification.json").write_text(json.dumps([{**entry, "weights_sha256": "0"}]))
    with pytest.raises(
        ValueError, match=r"verification\.json in .* is of another model\.safetensors; verify the folder"
    ):
        CardInfo.of_folder(folder)


def test_nothing_of_this_machine_is_in_a_folder(base: Path, root: Path) -> None:
    render_all(root)
    for path in root.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml", ".md"):
            text = path.read_text(encoding="utf-8")
            assert str(base) not in text, path
            assert str(Path.home()) not in text, path


def test_the_command_of_the_card_is_that_of_the_run(base: Path, root: Path) -> None:
    command = re.search(r"^cosify train (.*)$", rendered(root / LS)[root / LS / "README.md"], re.MULTILINE)
    assert command is not None
    repeated = parse_arguments(TrainArguments, shlex.split(command[1]), words=("data",))
    for name, value in json.loads((base / LS / "config.json").read_text())["arguments"].items():
        if name not in ("model", "model_kwargs", "image_size"):  # what the defaults became, there
            assert getattr(repeated, name) == value, name
    assert (repeated.model, repeated.image_size) == ("resnet10t", 32)
    train(TrainArguments(**{**vars(repeated), "output": str(base / "again")}))
    first, again = (read_metrics(base / name)[-1]["train_loss"] for name in (LS, "again"))
    assert first == again


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("LS=runs/a b=runs/b /d/CIFAR100 --ood=/d/CIFAR10 --output=runs/x", "N CIFAR100 --ood CIFAR10"),
        ("--limit 100 LS=runs/a /d/CIFAR100:test", "N CIFAR100:test --limit 100"),
        ("LS=runs/a lists/Places_LT@/home/me/places --calibrate", "N Places_LT --calibrate"),
        (
            "a ORG/set --ood ORG/other.v2:validation --transfer ./data/ ~/x",
            "N ORG/set --ood ORG/other.v2:validation --transfer data x",
        ),
        ("a digits --exclude-classes 3 5", "N digits --exclude-classes 3 5"),
    ],
)
def test_the_command_of_an_evaluation_follows_from_its_settings(typed: str, expected: str) -> None:
    words = ("models", "data")
    settings = resolved(parse_arguments(EvaluateArguments, shlex.split(typed), words=words))
    record = {"command": f"cosify evaluate {typed}", "arguments": settings}
    command = evaluation_command(record, "N")
    assert command == f"cosify evaluate {expected}"
    parse_arguments(EvaluateArguments, shlex.split(command)[2:], words=words)


def test_an_evaluation_without_settings_is_refused() -> None:
    with pytest.raises(ValueError, match=r"evaluation\.json has no settings, expected those .*; evaluate again"):
        evaluation_command({"command": "cosify evaluate a digits"}, "N")


def test_lists_keep_their_name_in_the_command_of_a_run() -> None:
    run = {"script": "TrainArguments", "arguments": {"data": "lists/Places_LT@/home/me/places", "model": "m"}}
    assert run_for_others(run)["arguments"]["data"] == "Places_LT"


def changed(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a folder of results and change the record in it."""
    folder = shutil.copytree(source, target)
    record = json.loads((folder / "evaluation.json").read_text())
    change(record)
    (folder / "evaluation.json").write_text(json.dumps(record))
    return folder


def test_numbers_that_are_not_those_of_their_features_are_refused(base: Path, root: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(root / LS, tmp_path / LS)
    stale = changed(base / "eval", tmp_path / "stale", lambda record: record["models"][0].update(accuracy=0.25))
    with pytest.raises(ValueError, match=r"says 0.2500 of 200 images for .* its feature cache 0\.\d+ of 200, expected"):
        add_evaluation(stale, LS, folder)
    assert (folder / "evaluation.json").read_bytes() == (root / LS / "evaluation.json").read_bytes()


def of_other_images(record: dict[str, Any]) -> None:
    record["fingerprint"]["test"]["num"] = 60


def of_other_names(record: dict[str, Any]) -> None:
    record["fingerprint"]["label_names"][0] = "zero"


def of_another_split(record: dict[str, Any]) -> None:
    del record["fingerprint"]
    record["arguments"]["data"] = "digits:train"


def of_another_set(record: dict[str, Any]) -> None:
    del record["fingerprint"]
    record["arguments"]["data"] = "ylecun/mnist"


def of_another_number(record: dict[str, Any]) -> None:
    del record["fingerprint"]
    record["arguments"]["limit"] = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_other_images, r"those of the run, digits: split 'test' has 60 images \(597 before\); evaluate on the data"),
        (of_other_names, r"class 0 is 'zero' \('0' before\)"),
        (of_another_split, "the evaluation is of digits:train"),
        (of_another_set, "the evaluation is of ylecun/mnist"),
        (of_another_number, r"there are 200 test images \(597 before\)"),
    ],
)
def test_numbers_of_other_data_are_refused(
    base: Path, root: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    folder = shutil.copytree(root / LS, tmp_path / LS)
    with pytest.raises(ValueError, match=message):
        add_evaluation(changed(base / "eval", tmp_path / "eval", change), LS, folder)


def test_an_evaluation_of_an_early_version_is_read(base: Path, root: Path, tmp_path: Path) -> None:
    cached = FeatureCache.open(base / "eval" / "features" / LS / "test").info
    run = json.loads((root / LS / "run.json").read_text())
    refuse_other_data(tmp_path, run, {}, replace(cached, num_samples=597))
    del run["fingerprint"], run["num_test"]
    refuse_other_data(tmp_path, run, {}, cached)
    run["fingerprint"] = {"label_names": ["zero"]}
    with pytest.raises(ValueError, match="the classes have other names, or come in another order"):
        refuse_other_data(tmp_path, run, {}, cached)


def test_a_run_that_kept_its_test_images_is_measured_on_them(base: Path, root: Path) -> None:
    cached = FeatureCache.open(base / "eval" / "features" / LS / "test").info
    record = json.loads((base / "eval" / "evaluation.json").read_text())
    run = json.loads((root / LS / "run.json").read_text())
    run["arguments"]["test_split"] = "val"
    with pytest.raises(ValueError, match="is of the split that the run chose by, val, expected the images"):
        refuse_other_data(base, run, record, cached)
    run["fingerprint"]["test"]["order"] = "another"  # of the validation split
    refuse_other_data(base, run, record, cached)
    run["fingerprint"]["train"]["order"] = "another"
    refuse_other_data(base, run, record, cached)  # it recorded the part of the images that limit_train left
    run["arguments"]["limit_train"] = None
    with pytest.raises(ValueError, match="is of other data than those of the run, digits: "):
        refuse_other_data(base, run, record, cached)


def test_siblings_of_different_test_images_do_not_stand_side_by_side(root: Path) -> None:
    one, other = (CardInfo.of_folder(root / name) for name in (LS, SOFTMAX))
    fewer = replace(other, assessment=replace(other.assessment, num_test=100))
    with pytest.raises(ValueError, match=rf"different numbers of test images, .*'{SOFTMAX}': 100.*, expected the same"):
        family_table([one, fewer])
    run = json.loads(json.dumps(other.run))
    run["fingerprint"]["test"]["order"] = "another"
    with pytest.raises(ValueError, match=rf"siblings {LS} and {SOFTMAX} have different test images: the images of"):
        family_table([one, replace(other, run=run)])
    run["fingerprint"]["test"].update(counts=None, order=None)  # of a stream
    assert len(family_table([one, replace(other, run=run)]).rows) == 3
    del run["fingerprint"]
    assert len(family_table([one, replace(other, run=run)]).rows) == 3


def test_families_whose_members_were_measured_differently(root: Path) -> None:
    one, other = (replace(CardInfo.of_folder(root / name), compared=()) for name in (LS, SOFTMAX))
    (probe,) = other.assessment.transfer.values()
    with_other = {**vars(other.assessment), "transfer": {"x": probe}, "miss": {}}
    other = CardInfo(**{**vars(other), "assessment": type(other.assessment)(**with_other)})
    table = family_table([one, other])
    assert all(len(row) == len(table.header) for row in table.rows)
    assert table.rows[1][table.header.index("probe digits-train %")] == "-"
    assert table.rows[0][table.header.index("probe x %")] == "-"
    assert against_baseline(one, [one, other]) == []
    assert f"probe x % | fine-tuned digits:train % | MB |\n| --- |{' --- |' * (len(table.header) - 1)}" in render(
        other, [one, other]
    )


@pytest.mark.parametrize(
    ("accuracy", "verdict", "as_in_the_paper"),
    [
        (0.9, "+40.0 ± 2.9 points to {}, above it.", True),
        (0.5, "+0.0 ± 3.5 points to {}, no difference to see.", False),
    ],
)
def test_transfer_is_compared_with_that_of_softmax(
    root: Path, accuracy: float, verdict: str, as_in_the_paper: bool
) -> None:
    one, softmax = (CardInfo.of_folder(root / name) for name in (LS, SOFTMAX))
    (tuned,) = one.finetuned
    softmax = replace(softmax, finetuned=(replace(tuned, accuracy=0.5, num_test=400),))
    large = replace(
        one,
        facts=replace(one.facts, use="transfer"),
        finetuned=(replace(tuned, accuracy=accuracy, num_test=400),),
        assessment=replace(one.assessment, transfer={}),
    )
    said, *more = against_baseline(large, [large, softmax])
    assert said == f"Fine-tuning on digits:train: {verdict.format(SOFTMAX)}"
    assert (more == []) == as_in_the_paper
    assert against_baseline(softmax, [large, softmax]) == []


def test_half_the_bytes_are_what_was_measured(base: Path, root: Path) -> None:
    model = timm.create_model(f"local-dir:{root / LS}", pretrained=True).eval()
    whole = cosify.load(base / LS / "export")
    images = torch.randn(64, *model.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (model(images).argmax(1) == whole(images).argmax(1)).float().mean() > 0.9
    half, full = ((folder / "model.safetensors").stat().st_size for folder in (root / LS, base / LS / "export"))
    assert half < 0.6 * full
    assert oct((root / LS / "model.safetensors").stat().st_mode & 0o777) == oct(
        (root / LS / "run.json").stat().st_mode & 0o777
    )


def test_what_is_missing_or_senseless_raises(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "facts.yaml"
    changes: list[tuple[dict[str, Any], str]] = [
        ({"license": None}, r"lacks \['license'\]"),
        ({"limits": []}, r"lacks \['limits'\]"),
        ({"base_model": "m"}, r"lacks \['base_license'\]"),
        ({"more": 1}, r"facts\.yaml has unknown \['more'\], expected"),
        ({"more": 1, "license": None}, r"lacks \['license'\] and has unknown \['more'\], expected"),
        ({"use": "all"}, "use in .* is 'all', expected one of"),
        ({"use": ["rejection"]}, "use in .* expected text"),
        ({"limits": "one"}, "limits in .* is 'one', expected text, or a list of texts"),
        ({"license": ["mit"]}, "license in .* expected text"),
        ({"repo_id": "no slash"}, "repo_id in"),
        ({"repo_id": "alone"}, "repo_id in .* expected OWNER/NAME"),
    ]
    for change, message in changes:
        path.write_text(yaml.safe_dump({**FACTS, **change}))
        with pytest.raises(ValueError, match=message):
            Facts.read(path)
    path.write_text("- a list")
    with pytest.raises(ValueError, match="holds a list, expected lines"):
        Facts.read(path)
    with pytest.raises(ValueError, match=r"lacks config\.json, run\.json"):
        CardInfo.of_folder(tmp_path)
    with pytest.raises(ValueError, match=r"has no folder with a facts\.yaml"):
        render_all(tmp_path)
    folder = shutil.copytree(root / LS, tmp_path / LS)
    with pytest.raises(ValueError, match=r"resnet10t\.softmax_digits lacks config\.json"):
        render_all(tmp_path)
    for change, message in (
        ({"siblings": [SOFTMAX]}, f"lack {LS} itself"),
        ({"siblings": [LS], "base_model": "a", "base_license": "b"}, ""),
    ):
        (folder / "facts.yaml").write_text(yaml.safe_dump({**FACTS, **change}))
        if message:
            with pytest.raises(ValueError, match=message):
                CardInfo.of_folder(folder)
    lonely = {name: fact for name, fact in FACTS.items() if name != "siblings"}
    (folder / "facts.yaml").write_text(yaml.safe_dump(lonely))
    alone = rendered(folder)[folder / "README.md"]
    assert f"{LS} (this one)" in alone
    assert SOFTMAX not in alone
    (folder / "facts.yaml").write_text(
        yaml.safe_dump({**FACTS, "siblings": [LS], "base_model": "a", "base_license": "b"})
    )
    assert "Started from a; licence: b." in rendered(folder)[folder / "README.md"]
    (folder / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match=r"evaluation\.json is no JSON"):
        CardInfo.of_folder(folder)


def test_names_of_others_are_refused(base: Path, root: Path) -> None:
    for name in ("resnet18.x", "noarch", "resnet10t.a/b", "resnet10t.c3_in1k"):
        with pytest.raises(ValueError, match=r"the name (is|'resnet10t\.c3_in1k' is that)"):
            collect(base / LS, base / f"{LS}.yaml", root / name)
    assert sorted(path.name for path in root.iterdir()) == [LS, SOFTMAX]


@pytest.mark.parametrize("files", [("photo.png",), ("config.json",), ("facts.yaml", "config.json", "notes/mine.txt")])
def test_a_folder_of_the_users_is_not_replaced(base: Path, tmp_path: Path, files: tuple[str, ...]) -> None:
    folder = tmp_path / LS
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    with pytest.raises(ValueError, match=r"holds \[.*\], expected a new or empty folder, or nothing but what"):
        collect(base / LS, base / f"{LS}.yaml", folder)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == sorted(files)


def test_a_link_out_of_a_folder_is_not_published(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_text("token")
    (folder / "config.json").write_text("{}")
    assert files_to_publish(folder) == [folder / "config.json"]
    (folder / "README.md").symlink_to("../secret")
    with pytest.raises(ValueError, match=r"README.md leads out of the folder, to .*secret, expected files of its own"):
        files_to_publish(folder)
    (folder / "README.md").unlink()
    (folder / ".eval_results").symlink_to(tmp_path)
    (tmp_path / "accuracy.yaml").write_text("x")
    with pytest.raises(ValueError, match=r"accuracy.yaml leads out of the folder"):
        files_to_publish(folder)


@pytest.mark.parametrize("file", ["config.json", "run.json", "metrics.jsonl", "environment.json", "model.safetensors"])
def test_numbers_of_other_files_are_refused(root: Path, tmp_path: Path, file: str) -> None:
    folder = shutil.copytree(root / LS, tmp_path / LS)
    (folder / file).write_bytes((folder / file).read_bytes() + b" ")
    with pytest.raises(ValueError, match=rf"evaluation\.json in .* is of another {re.escape(file)}; evaluate"):
        CardInfo.of_folder(folder)


def test_numbers_of_other_weights_are_refused(base: Path, root: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(root / LS, tmp_path / LS)
    shutil.copytree(root / LS, tmp_path / f".{LS}.{16 * 'a'}.new")  # of a process that was killed
    collect(base / LS, folder / "facts.yaml", folder)  # in float32 this time, with its own facts
    assert [path.name for path in tmp_path.iterdir()] == [LS]
    assert not (folder / "evaluation.json").exists(), "it was of what is gone"
    with pytest.raises(ValueError, match=r"is another model than .*; evaluate the folder itself"):
        add_evaluation(base / "eval", LS, folder)
    with pytest.raises(ValueError, match=r"has the models .* expected 'other' among them"):
        add_evaluation(base / "eval", "other", folder)
    for other in (folder, root / SOFTMAX):
        with pytest.raises(ValueError, match=r"tuned did not start from the weights in"):
            add_finetuned(base / "tuned", other)


def test_a_fine_tuning_has_ended_by_its_epochs_or_its_early_stop(base: Path, root: Path, tmp_path: Path) -> None:
    tuned, folder = shutil.copytree(base / "tuned", tmp_path / "tuned"), shutil.copytree(root / LS, tmp_path / LS)
    config = json.loads((tuned / "config.json").read_text())
    config["arguments"]["epochs"] = 5
    (tuned / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="tuned has ended 1 of 5 epochs; resume it"):
        add_finetuned(tuned, folder)
    config["arguments"]["early_stop_evaluations"] = 1
    (tuned / "export").mkdir()  # comes last
    (tuned / "config.json").write_text(json.dumps(config))
    add_finetuned(tuned, folder)
    done = CardInfo.of_folder(folder).finetuned[-1]
    assert (done.command.endswith("--set early_stop_evaluations=1"), done.epochs) == (True, 1)
    metrics = (tuned / "metrics.jsonl").read_text()
    (tuned / "metrics.jsonl").write_text(metrics.replace('"test_accuracy"', '"other"'))
    with pytest.raises(ValueError, match=r"tuned has no evaluation of its last epoch, 1, .* again with --overwrite"):
        add_finetuned(tuned, folder)
    (tuned / "metrics.jsonl").write_text(metrics)
    (tuned / "config.json").write_text(json.dumps(config | {"num_test": None}))
    with pytest.raises(ValueError, match=r"tuned streamed its data .* fine-tune without streaming"):
        add_finetuned(tuned, folder)


def test_a_run_that_started_from_weights_names_them(base: Path, root: Path, tmp_path: Path) -> None:
    settings = {"model": str(root / SOFTMAX), "epochs": 1, "limit_train": 200, "kappa": "10", "max_drop": 1.0}
    result = cosify_again(CosifyArguments(**settings, output=str(tmp_path / "run")))
    export(result)
    plot(result)
    facts = tmp_path / "facts.yaml"
    facts.write_text(yaml.safe_dump({**FACTS, "base_model": "ORG/base", "base_license": "mit"}))
    collect(tmp_path / "run", facts, tmp_path / "cards" / LS)
    run = json.loads((tmp_path / "cards" / LS / "run.json").read_text())
    assert (run["arguments"]["model"], run["start"]) == ("ORG/base", "ORG/base")
    facts.write_text(yaml.safe_dump(FACTS))
    with pytest.raises(ValueError, match=r"base_model is missing in facts\.yaml, but the run started"):
        collect(tmp_path / "run", facts, tmp_path / "cards" / LS)


@pytest.mark.parametrize(("start", "linked"), [("hf-hub:ORG/base", "ORG/base"), ("efficientnet-lite0", None)])
def test_the_hub_is_told_of_a_start_that_it_has(root: Path, start: str, linked: str | None) -> None:
    info = CardInfo.of_folder(root / LS)
    found = replace(info, facts=replace(info.facts, base_model=start, base_license="mit"))
    assert yaml.safe_load(front_matter(found)).get("base_model") == linked
    card = render(found, [found])
    assert f"Started from {start}; licence: mit." in card


def test_the_card_says_which_epochs_ran_and_of_which_the_weights_are(root: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(root / LS, tmp_path / LS)
    lonely = {name: fact for name, fact in FACTS.items() if name != "siblings"}
    (folder / "facts.yaml").write_text(yaml.safe_dump(lonely))
    assert ", 6 epochs, batches" in rendered(folder)[folder / "README.md"]
    records = read_metrics(folder)[:3]
    for record, accuracy in zip(records, (0.2, 0.5, 0.5), strict=True):
        record["test_accuracy"] = accuracy
    between = {"kind": "step", "epoch": 2, "step": records[0]["step"] + 1, "test_accuracy": 0.5}
    lines = [records[0], between, *records[1:]]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = json.loads((folder / "run.json").read_text())
    run["arguments"]["export"] = "best"
    (folder / "run.json").write_text(json.dumps(run))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["measured"] = asdict(Measured.of_folder(folder))
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    weights = f"(these weights: epoch 2, step {between['step']}, the best in evaluation)"
    assert f", 3 of at most 6 epochs {weights}, batches" in rendered(folder)[folder / "README.md"]


def test_a_card_that_is_wrong_does_not_go_up(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (LS, SOFTMAX):
        shutil.copytree(root / name, tmp_path / name)
    render_all(tmp_path)
    with pytest.raises(ValueError, match=r"repository is ORG/other, and the card of .* for ORG/digits-net"):
        push(tmp_path / LS, "ORG/other", dry_run=True, check=check_card)
    with pytest.raises(ValueError, match=r"has a facts.yaml, expected a check .* check=cosify.cards.check_card"):
        push(tmp_path / LS, "ORG/digits-net", dry_run=True)
    (tmp_path / "a.broken").mkdir()
    (tmp_path / "a.broken" / "facts.yaml").write_text("nothing")
    monkeypatch.chdir(tmp_path / SOFTMAX)
    done = push(".", "ORG/digits-net", dry_run=True, check=check_card)  # a neighbour that is broken does not matter
    assert len(done.readers) == 4
    assert {"facts.yaml", "run.json", "README.md", "evaluation.json"} <= {name for name, _ in done.files}
    card = tmp_path / SOFTMAX / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("Top-1 on 200", "Top-1 on 2000"))
    with pytest.raises(ValueError, match=r"README\.md is not what the files beside it say"):
        push(".", "ORG/digits-net", dry_run=True, check=check_card)


@pytest.mark.parametrize(
    "flags",
    [
        {"run": "r"},
        {"name": "n"},
        {"name": "n", "run": "r"},
        {"name": "../n", "finetuned": "t"},
        {"name": "n", "facts": "f", "finetuned": "t"},
        {"name": "n", "dataset": "ORG/NAME"},
        {"verification": "v"},
        {"name": "n", "transfer": "t"},
        {"name": "n", "verification": "v", "finetuned": "t"},
    ],
)
def test_flags_that_do_not_belong_together(flags: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected nothing, or --name with --run and --facts"):
        cards.main(cards.CardArguments(**flags))
