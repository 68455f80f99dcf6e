"""Collect trained models under hub_cards/, and write their cards from the files that lie there.

    python scripts/cards.py
    python scripts/cards.py --name resnet18_cifar.cos_ls_cifar100 --run RUN --facts FACTS --half
    python scripts/evaluate.py LS=hub_cards/resnet18_cifar.cos_ls_cifar100 --data DATA --output FOLDER
    python scripts/cards.py --name resnet18_cifar.cos_ls_cifar100 --evaluation FOLDER --title LS
    python scripts/finetune.py --model hub_cards/resnet18_cifar.cos_ls_cifar100 --data TASK --output RUN2
    python scripts/cards.py --name resnet18_cifar.cos_ls_cifar100 --finetuned RUN2

The first writes hub_cards/NAME/README.md anew for every model.  The second fills one folder: weights and config of the
run's export, its settings, metrics and environment, and the facts that no run knows (licences, limits, what it is for).
Evaluated and fine-tuned is what is shipped, and the others add that.  No number of a card is typed.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class CardArguments:
    """Settings."""

    name: str | None = field(default=None, metadata={"help": "Of one folder. Default: write all cards."})
    run: str | None = field(default=None, metadata={"help": "Run with an export, to collect."})
    facts: str | None = field(default=None, metadata={"help": "YAML file of what no run knows; with --run."})
    half: bool = field(default=False, metadata={"help": "Store matrices and filters in float16. Default: float32."})
    evaluation: str | None = field(default=None, metadata={"help": "Output folder of scripts/evaluate.py, to add."})
    title: str | None = field(default=None, metadata={"help": "Of the model in that evaluation."})
    finetuned: str | None = field(default=None, metadata={"help": "Run of scripts/finetune.py from it, to add."})
    root: str = field(default="hub_cards", metadata={"help": "Folder of the models. Default hub_cards."})


def main(args: CardArguments) -> None:
    """Collect, add, or render."""
    from cosify.command import set_up_logging
    from cosify.hub.collect import add_evaluation, add_finetuned, collect, render_all

    set_up_logging()
    root = Path(args.root)
    if args.name is None:
        for card in render_all(root):
            logger.info("%s", card)
    elif args.run is not None and args.facts is not None:
        collect(Path(args.run), Path(args.facts), root / args.name, half=args.half)
    elif args.evaluation is not None and args.title is not None:
        add_evaluation(Path(args.evaluation), args.title, root / args.name)
    elif args.finetuned is not None:
        add_finetuned(Path(args.finetuned), root / args.name)
    else:
        raise ValueError("--name came alone, expected --run and --facts, --evaluation and --title, or --finetuned too")


if __name__ == "__main__":
    from cosify.command import run_main

    run_main(main, CardArguments, __doc__)
