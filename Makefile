# demo, test: what a newcomer runs.  The rest is for development; CI calls the same targets.
VENV := .venv
PYTHON := $(VENV)/bin/python
export HF_HUB_OFFLINE := 1

.PHONY: demo test test-slow test-lowest check format smoke cards build

demo: $(VENV)/installed
	$(PYTHON) scripts/demo.py

test: $(VENV)/installed
	$(PYTHON) -m pytest -n 2 -m "not slow and not gpu"

test-slow: $(VENV)/installed
	$(PYTHON) -m pytest -n 2 -m "slow or gpu"

# The fast suite on the oldest versions that pyproject.toml allows of what moves most, in an environment of its own
# (several GB).
LOWEST = $(shell sed -nE 's/^    "(torch|timm|transformers|huggingface-hub|datasets|accelerate)>=([0-9.]+)",/\1==\2.*/p' pyproject.toml)
test-lowest:
	python3 -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-lowest/bin/python -m pip install --quiet --editable '.[demo,onnx]' --group dev $(LOWEST)
	$(VENV)-lowest/bin/python -m pytest -n 2 -m "not slow and not gpu"

check: $(VENV)/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: $(VENV)/installed
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# The slow tests run compare.py, benchmark.py and cards.py.
smoke: $(VENV)/installed
	$(PYTHON) scripts/train.py --smoke --output runs/smoke --overwrite
	$(PYTHON) scripts/cosify_pretrained.py --smoke --output runs/smoke-cosify --overwrite
	$(PYTHON) scripts/finetune.py --smoke --output runs/smoke-finetune --overwrite
	$(PYTHON) scripts/linear_probe.py --smoke --output runs/smoke-probe --overwrite
	$(PYTHON) scripts/scan.py --smoke --output runs/smoke-scan
	$(PYTHON) scripts/evaluate.py --smoke --output runs/smoke-evaluate
	$(PYTHON) scripts/publish.py runs/smoke --repo ORG/NAME
	$(PYTHON) scripts/reproduce.py all --output runs/smoke-reproduce
	$(PYTHON) scripts/sweep.py --models 'test_*' --output runs/sweep
	$(PYTHON) scripts/margin.py --smoke --output runs/margin
	$(PYTHON) scripts/benchmark_step.py --smoke
	$(PYTHON) scripts/benchmark_loop.py --smoke

cards: $(VENV)/installed
	$(PYTHON) scripts/cards.py

build: $(VENV)/installed
	$(PYTHON) -m build --outdir dist

# pip from 25.1 on reads dependency groups, the one place that pins the tools.
$(VENV)/installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet --editable '.[demo,onnx]' --group dev
	touch $@
