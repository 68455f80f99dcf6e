# demo, test: what a newcomer runs.  The rest is for development; CI calls the same targets.
VENV := .venv
PYTHON := $(VENV)/bin/python
export HF_HUB_OFFLINE := 1
unexport PYTHONDONTWRITEBYTECODE  # every program would compile torch anew

.PHONY: demo test test-lowest check format smoke notebook cards build

demo: $(VENV)/installed
	$(PYTHON) scripts/demo.py

# The fast tests; all of them with TESTS= (on two cores ten to 25 minutes).
TESTS = not slow and not gpu
test: $(VENV)/installed
	$(PYTHON) -m pytest -n 2 --dist worksteal -m "$(TESTS)"

# The fast suite on the oldest versions that pyproject.toml allows of what moves most, in an environment of its own
# (several GB).
LOWEST = $(shell sed -nE 's/^    "(torch|timm|transformers|huggingface-hub|datasets|accelerate)>=([0-9.]+)",/\1==\2.*/p' pyproject.toml)
test-lowest:
	python3 -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-lowest/bin/python -m pip install --quiet --editable '.[lab,demo,onnx]' --group dev $(LOWEST)
	$(VENV)-lowest/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

check: $(VENV)/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -c "from importlinter.cli import lint_imports_command as main; main()" --no-cache --no-logo
	$(PYTHON) -m mypy

format: $(VENV)/installed
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# The slow tests run compare.py, benchmark.py and `cosify card`; gpu_suite.py runs the other benchmarks.
COMMANDS := train finetune adapt probe scan evaluate verify
OTHERS := gpu_suite publish reproduce sweep
.PHONY: $(COMMANDS:%=smoke-%) $(OTHERS:%=smoke-%)
smoke: $(COMMANDS:%=smoke-%) $(OTHERS:%=smoke-%)

$(COMMANDS:%=smoke-%): smoke-%: $(VENV)/installed
	$(PYTHON) -m cosify $* --smoke --output runs/smoke-$* --overwrite

smoke-gpu_suite: $(VENV)/installed
	$(PYTHON) scripts/gpu_suite.py --smoke --output runs/smoke-gpu_suite

smoke-publish: smoke-train
	$(PYTHON) -m cosify publish runs/smoke-train ORG/NAME

smoke-reproduce: $(VENV)/installed
	$(PYTHON) scripts/reproduce.py all --output runs/smoke-reproduce

smoke-sweep: $(VENV)/installed
	$(PYTHON) scripts/sweep.py --models test_vit test_resnet ViTForImageClassification --output runs/smoke-sweep

# Runs scripts/quickstart.ipynb and stores what it prints and draws.  Matplotlib looks for the fonts before: where that
# takes long it says so, which would be stored too.
notebook: $(VENV)/installed
	$(PYTHON) -c "import matplotlib.font_manager"
	PYTHONWARNINGS=ignore:IProgress $(PYTHON) -m nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False scripts/quickstart.ipynb

cards: $(VENV)/installed
	$(PYTHON) -m cosify card

build: $(VENV)/installed
	$(PYTHON) -m build --outdir dist

# pip from 25.1 on reads dependency groups, the one place that pins the tools.  Most of these gigabytes are never
# imported, so Python compiles what is, when it is.
$(VENV)/installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet --no-compile --editable '.[lab,demo,onnx]' --group dev
	touch $@
