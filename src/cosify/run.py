"""Run any script with the cosify plugins on: `python -m cosify.run train.py --model resnet50 --model-kwargs head=cos`.

timm and transformers do not look for plugins: a script that does not import cosify has to be started this way.  With a
cosine head, timm's train.py then prints kappa after each epoch, and writes it to summary.csv and, with --log-wandb, to
W&B.
"""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from cosify.errors import InputError  # importing cosify installs the plugins
from cosify.integrations import sigmoid_guard, timm_summary


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script named first, as `__main__`, with the rest of the arguments.

    Raises:
        SystemExit: if no script is named, it does not exist, or it asks for what cosify refuses, such as a cosine
            head with a sigmoid loss.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments:
        raise SystemExit("usage: python -m cosify.run SCRIPT [ARGUMENTS]")
    script = Path(arguments[0])
    if not script.is_file():
        raise SystemExit(f"{script} is not a file, expected a Python script such as timm's train.py")
    sigmoid_guard.install()
    sys.argv = arguments
    sys.path.insert(0, str(script.resolve().parent))  # as `python SCRIPT` does
    try:
        with timm_summary.told_of_kappa():
            runpy.run_path(str(script), run_name="__main__")
    except InputError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
