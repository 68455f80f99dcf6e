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

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
INSIDE = (ROOT / "src/cosify/README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT + INSIDE, flags=re.DOTALL)
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL) for line in block.splitlines()]


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


def test_benchmark_rows_are_those_of_the_run() -> None:
    rows = re.findall(r"^\| \d+, \d+, \d+ \|.*$", TEXT, flags=re.MULTILINE)
    runs = (ROOT / "scripts/results" / name / "benchmark.md" for name in ("benchmark_cpu", "benchmark_evaluation"))
    measured = "".join(run.read_text(encoding="utf-8") for run in runs)
    assert len(rows) >= 10
    assert [row for row in rows if row not in measured] == []


def test_commands_exist() -> None:
    assert len(BLOCKS) >= 5
    targets = re.findall(r"^(\S+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for command in COMMANDS:
        words = shlex.split(command, comments=True)
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
