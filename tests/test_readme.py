"""The pages' Python blocks run as written, in order, each in the same folder; commands name files that exist."""

import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import cosify
from cosify.__main__ import command as program
from cosify.console import parse_arguments
from cosify.training.opener import open_model
from scripts import pages

ROOT = Path(__file__).parents[1]
PAGES = {
    name: (ROOT / name / "README.md").read_text(encoding="utf-8")
    for name in (".", "scripts", "scripts/results", "hub_cards", "src/cosify")
}
TEXT, INSIDE = PAGES["."], PAGES["src/cosify"]
BLOCKS = re.findall(r"```python\n(.*?)```", "".join(PAGES.values()), flags=re.DOTALL)
COMMANDS = [
    line
    for text in PAGES.values()
    for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    for line in block.splitlines()
]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)]*))?\)")


class LightningModule(torch.nn.Module):
    """What the pages use of Lightning, which is not among the packages that the tests install."""

    def log(self, name: str, value: torch.Tensor, **how: bool) -> None:
        self.logged = {name: value}


LIGHTNING: Any = SimpleNamespace(LightningModule=LightningModule)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "lightning", LIGHTNING)
    exec(compile(BLOCKS[number], f"block {number} of the pages", "exec"), {})
    printed = capsys.readouterr().out
    for promised in re.findall(r"^print\(.*\)  # ((?:torch|CosineLinear).*)$", BLOCKS[number], flags=re.MULTILINE):
        assert promised.split(", kappa* of")[0] in printed


def test_kappa_in_a_loop_of_ones_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The loop prints kappa of its samples, and the Lightning module logs that of its batch."""
    plain, module = (block for block in BLOCKS if "last_kappa for head in" in block)
    names: dict[str, Any] = {}
    exec(compile(plain, "plain loop", "exec"), names)
    assert len(names["kappa"]) == 4 * 8
    assert f"kappa: mean {names['kappa'].mean():.3g}, median" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "lightning", LIGHTNING)
    exec(compile(module, "Lightning module", "exec"), names)
    classifier = names["Classifier"]()
    classifier.training_step(names["batches"][0], 0).backward()
    (head,) = cosify.find_heads(classifier).values()
    assert head.weight.grad is not None
    assert classifier.logged == {"kappa_mean": head.last_kappa.mean()}


@pytest.mark.parametrize("folder", ["vit-cos", "vit-trained"])
def test_a_model_of_transformers_is_saved_with_its_processor(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one, `cosify evaluate` cannot prepare images for it."""
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in BLOCKS if f'("{folder}")' in block)
    exec(compile(block, "block of transformers", "exec"), {})
    model, preprocessing = open_model(folder)
    assert preprocessing.image_size == model.config.image_size == 32


@pytest.mark.parametrize("template", pages.PAGES)
def test_generated_pages_are_those_of_the_files(template: str) -> None:
    assert pages.PAGES[template].read_text(encoding="utf-8") == pages.page(template), "run python scripts/pages.py"


def test_backbones_of_the_readme_are_those_of_the_cards() -> None:
    rows = re.findall(r"^\| `(\w+)`(?:, ([\d.]+))? \|(.*)\|$", TEXT, flags=re.MULTILINE)
    assert len(rows) == 4
    for tag, kappa, numbers in rows:
        start = f"| tf_efficientnet_lite0.{tag}_"
        (card,) = (line for line in PAGES["hub_cards"].splitlines() if line.startswith(start))
        cells = [cell.strip() for cell in card.strip("|").split("|")]
        assert [number.strip() for number in numbers.split("|")] == [cells[3], cells[4], *cells[-3:-1]]
        assert kappa == "" or float(kappa) == round(float(cells[2]), 1)


def test_the_front_page_is_short() -> None:
    assert len(TEXT.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in LINK.findall(re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)):
        path = ROOT / page / target if target else ROOT / page / "README.md"
        assert path.exists(), target
        if anchor:
            text = (path / "README.md" if path.is_dir() else path).read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, anchor


def test_commands_exist() -> None:
    assert len(BLOCKS) >= 10
    targets = re.findall(r"^(\S+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for command in COMMANDS:
        words = shlex.split(command, comments=True)
        if words[:1] == ["cosify"]:
            known = program(words[1])
            words = words if "--resume" not in words else words[:2]  # RUN stands for a folder that would be read
            parse_arguments(known.settings, words[2:], f"cosify {words[1]}", known.words)
        if words[:1] == ["make"]:
            assert words[1] in targets, command
        for word in words:
            if word.startswith("scripts/"):
                assert (ROOT / word).is_file(), command


def test_the_page_about_the_code_quotes_it() -> None:
    code = (ROOT / "src/cosify/functional/ls.py").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:cosine|alpha|average) = .*?(?=  +#)", INSIDE, flags=re.MULTILINE)
    assert len(lines) == 3
    assert [line for line in lines if line not in code] == []
    named = re.findall(r"^\| `(\w+\.py)` \|", INSIDE, flags=re.MULTILINE)
    folder = ROOT / "src/cosify/functional/search"
    assert sorted(named) == sorted(path.name for path in folder.glob("*.py") if path.name != "__init__.py")
