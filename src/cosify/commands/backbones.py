"""List the published backbones with what was measured of each.

    cosify backbones
    cosify backbones --json

timm.create_model(NAME, pretrained=True) opens one, and the other commands take its NAME as MODEL.  Accuracy is that on
the test split of its training data; probe is the accuracy of a linear classifier on its frozen features, on another
task.  The weights of those marked "here" came with the package; the others are downloaded on first use.
"""

import json
import sys
from dataclasses import asdict, dataclass

from cosify.console import Command
from cosify.settings import flag


@dataclass(frozen=True)
class BackbonesArguments:
    """Settings."""

    json: bool = flag(False, "Print a JSON list, for programs. Default: a table.")


def main(args: BackbonesArguments) -> None:
    """List."""
    from cosify.hub import list_backbones

    rows = list_backbones()
    text = json.dumps([asdict(row) for row in rows], indent=1) if args.json else repr(rows)
    sys.stdout.write(text + "\n")


COMMAND = Command(main, BackbonesArguments, __doc__, needs_lab=False)
