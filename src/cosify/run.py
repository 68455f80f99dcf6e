"""Run any script with the cosify plugins on: `python -m cosify.run train.py --model resnet50 --model-kwargs head=cos`.

timm and transformers look for no plugins, so a script that does not import cosify needs this one line in front.
"""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import cosify  # noqa: F401  # installs the plugins


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script named first, as `__main__`, with the rest of the arguments.

    Raises:
        SystemExit: if no script is named, it does not exist, or it asks for a cosine head with a sigmoid loss.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments:
        raise SystemExit("usage: python -m cosify.run SCRIPT [ARGUMENTS]")
    script = Path(arguments[0])
    if not script.is_file():
        raise SystemExit(f"{script} is not a file, expected a Python script such as timm's train.py")
    if "--bce-loss" in arguments and any("cos" in argument.partition("head=")[2] for argument in arguments):
        raise SystemExit(
            "--bce-loss cannot train a cosine head: it has no bias, so a sigmoid cannot put its threshold anywhere but"
            " at 90 degrees, and kappa is defined by a softmax; drop --bce-loss"
        )
    sys.argv = arguments
    sys.path.insert(0, str(script.resolve().parent))  # as `python SCRIPT` does
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
