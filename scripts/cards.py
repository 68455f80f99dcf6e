"""Collect trained models under hub_cards/, and write their cards from the files that lie there.

    python scripts/cards.py
    python scripts/cards.py --init FACTS
    python scripts/cards.py --name resnet18_cifar.cos_ls_cifar100 --run RUN --facts FACTS --half
    python scripts/evaluate.py LS=hub_cards/resnet18_cifar.cos_ls_cifar100 --data DATA --output FOLDER
    python scripts/cards.py --name resnet18_cifar.cos_ls_cifar100 --evaluation FOLDER --title LS
    python scripts/finetune.py --model hub_cards/resnet18_cifar.cos_ls_cifar100 --data TASK --output RUN2
    python scripts/cards.py --name resnet18_cifar.cos_ls_cifar100 --finetuned RUN2

The first writes hub_cards/NAME/README.md anew for every model.  The second writes a file to fill in with facts, what no
run knows: licences, limits, what it is for.  The third fills one folder: weights and config of the run's export, its
settings, metrics and environment, and these facts.
Evaluated and fine-tuned is what is shipped, and the others add that.  No number of a card is typed.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from cosify.errors import InputError
from cosify.settings import flag

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class CardArguments:
    """Settings."""

    init: str | None = flag(None, "YAML file to begin, with all keys of the facts and a comment on each.")
    name: str | None = flag(None, "Of one folder. Default: write all cards.")
    run: str | None = flag(None, "Run with an export, to collect.")
    facts: str | None = flag(None, "YAML file of what no run knows; with --run.")
    half: bool = flag(False, "Store matrices and filters in float16. Default: float32.")
    evaluation: str | None = flag(None, "Output folder of scripts/evaluate.py, to add.")
    title: str | None = flag(None, "Of the model in that evaluation.")
    finetuned: str | None = flag(None, "Run of scripts/finetune.py from it, to add.")
    root: str = flag("hub_cards", "Folder of the models. Default hub_cards.")


def main(args: CardArguments) -> None:
    """Collect, add, or render."""
    from cosify.cards import add_evaluation, add_finetuned, collect, render_all
    from cosify.cards.facts import write_form
    from cosify.command import set_up_logging

    set_up_logging()
    given = {name: getattr(args, name) is not None for name in ("run", "facts", "evaluation", "title", "finetuned")}
    named = args.name is not None and Path(args.name).name == args.name
    came = {name for name, there in given.items() if there}
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
    else:
        raise InputError(
            f"name {args.name!r} came with {sorted(came)}, expected nothing, or --name with --run and --facts, with"
            " --evaluation and --title, or with --finetuned"
        )


if __name__ == "__main__":
    from cosify.command import run_main

    run_main(main, CardArguments, __doc__)
