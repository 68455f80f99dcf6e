"""Each script answers `--help` when it is started as its docstring says, from the top of the checkout."""

import subprocess

import pytest

from tests.processes import ROOT, stock_python

PROGRAMS = ["benchmark", "compare", "gpu_suite", "pages", "reproduce", "sweep", "tiny_sets", "train", "transfer"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_help(name: str) -> None:
    command = [stock_python(), f"scripts/{name}.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {name}.py ")
    assert f"python scripts/{name}.py" in done.stdout or f"cosify {name}" in done.stdout  # an example
