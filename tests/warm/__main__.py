"""Run make with an interpreter that starts at once: python -m tests.warm make -j 2 smoke."""

import subprocess
import sys

from tests.processes import python
from tests.warm import shared

with shared():
    sys.exit(subprocess.run([*sys.argv[1:], f"PYTHON={python()}"], check=False).returncode)
