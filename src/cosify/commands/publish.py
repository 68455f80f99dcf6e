"""Publish a model on the hub; without --push it is only checked.

    cosify publish RUN ORG/NAME
    cosify publish FOLDER ORG/NAME --push
    cosify publish FOLDER ORG/NAME --push --revision v2
    cosify publish FOLDER ORG/NAME --push --create-pr

The folder is opened in timm and transformers, each with cosify and without, in processes of their own, and labels are
compared; then config.json, model.safetensors, the card README.md, results and pictures go up as one commit.  The token
is that of `hf auth login` or HF_TOKEN; HF_ENDPOINT names another hub.  An upload that broke off is repeated by the same
command: what is there is not sent again.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cosify.console import Command, set_up_logging, show, two_columns
from cosify.errors import InputError
from cosify.settings import flag

if TYPE_CHECKING:
    from cosify.hub import Publication

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class PublishArguments:
    """Settings of one upload."""

    model: str = flag("", "Run, or folder of cosify.save. Needed.")
    repo: str = flag("", "On the hub, made if it is not there. Needed.")
    push: bool = flag(False, "Upload. Default: check and show only.")
    private: bool = flag(False, "Make a private repository. Default: public.")
    revision: str | None = flag(None, "Branch, made if it is not there. Default: main.")
    create_pr: bool = flag(False, "Open a pull request instead. Default: commit.")
    message: str = flag("Upload with cosify", "Of the commit.")


def main(args: PublishArguments) -> None:
    """Check, show, upload."""
    from cosify.cards import check_card
    from cosify.hub import push

    set_up_logging()
    for name in ("model", "repo"):
        if not getattr(args, name):
            raise InputError(f"{name} is missing; write cosify publish FOLDER OWNER/NAME")
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
    show(two_columns(done.repo_id, summary(done)))
    if done.commit is None:
        logger.info("nothing was sent; add --push to upload")
    else:
        logger.info("%s", done.url)
        logger.info('a backbone of cosify: add "%s@%s" to published.json in hub_cards', done.repo_id, done.commit)


def summary(done: "Publication") -> dict[str, Any]:
    """Return the rows of a table of what was, or would be, uploaded."""
    readers = dict.fromkeys(done.readers, "opens it and gives the same labels")
    return {**readers, **{name: f"{size / 1e6:.2f} MB" for name, size in done.files}}


COMMAND = Command(main, PublishArguments, __doc__, words=("model", "repo"))
