"""One file for each command: its settings, `main`, and `COMMAND`, which `cosify NAME` and `scripts/NAME.py` run."""
