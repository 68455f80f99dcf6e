"""Run make with interpreters that start at once: python -m tests.warm make -j 2 smoke."""

import os
import subprocess
import sys

from tests.processes import python, stock_python
from tests.warm import shared

with shared():
    # What a script starts may have to be stock, as the readers of publish.py.
    environment = {**os.environ, "TESTS_WARM_NESTED": stock_python()}
    sys.exit(subprocess.run([*sys.argv[1:], f"PYTHON={python()}"], env=environment, check=False).returncode)
