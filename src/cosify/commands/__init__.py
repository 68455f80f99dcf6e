"""One file a command: its settings, `main`, and `COMMAND`, which `cosify NAME` and `scripts/NAME.py` run."""
