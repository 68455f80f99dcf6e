"""scripts/quickstart.ipynb runs as it is, offline, and what is stored in it is what a run of it gives."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "scripts" / "quickstart.ipynb"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
MOST_BYTES = 400_000


@pytest.fixture(scope="module")
def stored() -> Any:
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    return notebook


def outputs_of(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def kinds(notebook: Any) -> list[list[tuple[str, ...]]]:
    """Return what each cell puts out; lines that are printed one after the other count once."""
    found: list[list[tuple[str, ...]]] = []
    for cell in notebook.cells:
        found.append([])
        for output in cell.get("outputs", []):
            kind = (output.output_type, output.get("name", ""), *sorted(output.get("data", {})))
            if kind[0] != "stream" or found[-1][-1:] != [kind]:
                found[-1].append(kind)
    return found


def text_of(notebook: Any) -> str:
    return "\n".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs_of(notebook)
    )


def check(notebook: Any) -> None:
    """Check what a reader is told: the digits are learnt, a digit is accepted, photographs are turned away."""
    text = text_of(notebook)
    assert {output.output_type for output in outputs_of(notebook)} <= {"stream", "display_data", "execute_result"}
    assert not [output for output in outputs_of(notebook) if output.get("name") == "stderr"]
    right = re.search(r"TrainResult\(([\d.]+)% of 597 test images right, kappa ([\d.]+) in", text)
    assert right is not None
    assert float(right[1]) > 95
    assert 3 < float(right[2]) < 8
    assert "output   runs/quickstart\n" in text
    assert "bias dropped" not in text  # neither a new layer nor a saved model has one
    assert re.search(r"^0: \d\d%$", text, flags=re.MULTILINE)
    digit, temple, flower = re.findall(r"^\d: '\d' \(class \d\): (\w+), score", text, flags=re.MULTILINE)
    assert (digit, temple, flower) == ("accepted", "rejected", "rejected")
    away = re.search(r"(\d+) of 120 patches of the photographs are turned away", text)
    assert away is not None
    assert int(away[1]) >= 105


def test_what_is_stored_reads_on_a_page(stored: Any) -> None:
    assert 10 <= len(stored.cells) <= 12
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert {str(cell.metadata) for cell in stored.cells} == {"{}"}  # no times
    text = FILE.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    assert not re.findall(r"/(?:home|root|tmp|work|usr|Users)/|[A-Z]:\\\\", re.sub(r'"image/\w+": "[^"]*"', "", text))
    check(stored)


def test_links_lead_somewhere(stored: Any) -> None:
    targets = re.findall(
        r"\]\(([^)]*)\)", "".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    )
    assert len(targets) >= 4
    assert [target for target in targets if not (FILE.parent / target).is_file()] == []


@pytest.mark.slow
def test_it_runs_and_gives_what_is_stored(stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))  # nothing of the user's is needed
    folder = tmp_path / "checkout"
    folder.mkdir()
    copy = Path(shutil.copy(FILE, folder))
    # As `make notebook` does, in a process of its own: nbclient leaves sockets open.
    (recipe,) = re.findall(r"^notebook:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)
    commands = recipe.replace("$(PYTHON)", sys.executable).replace("scripts/quickstart.ipynb", str(copy))
    subprocess.run(["bash", "-ec", commands], check=True)
    executed = nbformat.read(copy, as_version=4)
    check(executed)
    assert kinds(executed) == kinds(stored)
    assert sorted(path.name for path in folder.iterdir()) == ["quickstart.ipynb", "runs"]
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["digits", "quickstart", "scores.png"]
