"""Write model cards from the files of runs.

    cosify card                       write all cards anew
    cosify card --init FACTS          write a form for the facts that no run knows
    cosify card --name N --run RUN --facts FACTS
    cosify card --name N --evaluation FOLDER --title LS    or --transfer FOLDER
    cosify card --name N --finetuned RUN2
    cosify card --name N --verification FOLDER --dataset ORG/PAIRS

FACTS is a YAML file: licences, limits, what the model is for.  With --run, the folder hub_cards/N is filled: weights
and config of the run's export, its settings, metrics and environment, and these facts.  Then evaluate and fine-tune
what is in that folder, since that is what others get:

    cosify evaluate LS=hub_cards/N DATA --output FOLDER
    cosify finetune hub_cards/N TASK --output RUN2
    cosify verify hub_cards/N PAIRS --output FOLDER
    python scripts/transfer.py START LS=hub_cards/N --data TASK --output FOLDER

--evaluation, --finetuned, --transfer and --verification add the results.  No number of a card is typed by hand.
"""

import logging
from dataclasses import dataclass, fields
from pathlib import Path

from cosify.console import Command, set_up_logging
from cosify.errors import InputError
from cosify.settings import flag

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class CardArguments:
    """Settings."""

    init: str | None = flag(None, "Write a form for FACTS, a YAML file with comments. It has all keys.")
    name: str | None = flag(None, "Name of the model's folder. Default: write all cards.")
    run: str | None = flag(None, "Run to collect; it has an export.")
    facts: str | None = flag(None, "YAML file of what no run knows, for --run.")
    half: bool = flag(False, "Store matrices and filters in float16. Default: float32.")
    evaluation: str | None = flag(None, "Result of cosify evaluate to add.")
    title: str | None = flag(None, "Title of the model in that evaluation or comparison.")
    finetuned: str | None = flag(None, "Run of cosify finetune from this folder, to add.")
    transfer: str | None = flag(None, "Result of scripts/transfer.py to add.")
    verification: str | None = flag(None, "Result of cosify verify for this folder, to add.")
    dataset: str | None = flag(None, "Id of these pairs on the hub, for leaderboards. Default: on the card alone.")
    root: str = flag("hub_cards", "Folder of all models. Default hub_cards.")


def main(args: CardArguments) -> None:
    """Collect, add, or render."""
    from cosify.cards import add_evaluation, add_finetuned, add_transfer, add_verification, collect, render_all
    from cosify.cards.facts import write_form

    set_up_logging()
    adding = ("run", "facts", "evaluation", "title", "finetuned", "transfer", "verification", "dataset")
    named = args.name is not None and Path(args.name).name == args.name
    came = {name for name in adding if getattr(args, name) is not None}
    folder = Path(args.root, args.name or "")
    if args.init is not None and args.name is None and not came:
        write_form(Path(args.init))
        logger.info("%s", args.init)
    elif args.init is not None:
        raise InputError(f"init came with {sorted(came) or ['name']}, expected it alone; fill in the form first")
    elif args.name is None and not came:
        for file in render_all(Path(args.root)):
            logger.info("%s", file)
    elif named and came == {"run", "facts"}:
        collect(Path(str(args.run)), Path(str(args.facts)), folder, half=args.half)
    elif named and came == {"evaluation", "title"}:
        add_evaluation(Path(str(args.evaluation)), str(args.title), folder)
    elif named and came == {"finetuned"}:
        add_finetuned(Path(str(args.finetuned)), folder)
    elif named and came == {"transfer", "title"}:
        add_transfer(Path(str(args.transfer)), str(args.title), folder)
    elif named and came - {"dataset"} == {"verification"}:
        add_verification(Path(str(args.verification)), folder, args.dataset)
    else:
        raise InputError(
            f"name {args.name!r} came with {sorted(came)}, expected nothing, or --name with --run and --facts, with"
            " --evaluation or --transfer and --title, with --finetuned, or with --verification (and --dataset)"
        )


COMMAND = Command(
    main, CardArguments, __doc__, shown=tuple(each.name for each in fields(CardArguments) if each.name != "root")
)
