"""Publish a model on the Hugging Face hub.  Without --push everything is checked and nothing is sent.

    python scripts/publish.py RUN --repo ORG/NAME
    python scripts/publish.py FOLDER --repo ORG/NAME --push
    python scripts/publish.py FOLDER --repo ORG/NAME --push --revision v2
    python scripts/publish.py FOLDER --repo ORG/NAME --push --create_pr

The folder is opened in timm and transformers, each with cosify and without, in processes of their own, and labels are
compared; then config.json, model.safetensors, the card README.md, results and pictures go up as one commit.  The token
is that of `hf auth login` or HF_TOKEN; HF_ENDPOINT names another hub.  An upload that broke off is repeated by the same
command: what is there is not sent again.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosify.errors import InputError
from cosify.settings import flag

if TYPE_CHECKING:
    from rich.table import Table

    from cosify.hub import Publication

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class PublishArguments:
    """Settings of one upload."""

    model: str = flag("", "Run or folder of cosify.save; the first word on the line.")
    repo: str = flag("", "OWNER/NAME on the hub; made if it is not there.")
    push: bool = flag(False, "Upload. Default: check and show only.")
    private: bool = flag(False, "Make a private repository. Default: public.")
    revision: str | None = flag(None, "Branch, made if it is not there. Default: main.")
    create_pr: bool = flag(False, "Open a pull request instead. Default: commit.")
    message: str = flag("Upload with cosify", "Of the commit.")


def main(args: PublishArguments) -> None:
    """Check, show, upload."""
    from cosify.cards import check_card
    from cosify.command import set_up_logging, show
    from cosify.hub import push

    set_up_logging()
    for name in ("model", "repo"):
        if not getattr(args, name):
            raise InputError(f"{name} is missing; write scripts/publish.py FOLDER --repo OWNER/NAME")
    done = push(
        args.model,
        args.repo,
        private=args.private,
        revision=args.revision,
        create_pr=args.create_pr,
        message=args.message,
        dry_run=not args.push,
        check=check_card,
    )
    show(summary(done))
    if done.commit is None:
        logger.info("nothing was sent; add --push to upload")
    else:
        logger.info("%s", done.url)
        logger.info('a backbone of cosify: add "%s@%s" to published.json in hub_cards', done.repo_id, done.commit)


def summary(done: "Publication") -> "Table":
    """Return what was, or would be, uploaded."""
    from rich.table import Table

    table = Table(show_header=False, title=done.repo_id)
    for reader in done.readers:
        table.add_row(reader, "opens it and gives the same labels")
    for name, size in done.files:
        table.add_row(name, f"{size / 1e6:.2f} MB")
    return table


if __name__ == "__main__":
    from cosify.command import run_main

    run_main(main, PublishArguments, __doc__, positional=("model",))
