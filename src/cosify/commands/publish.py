"""Publish a model on the hub; without --push, only check it.

    cosify publish RUN ORG/NAME
    cosify publish FOLDER ORG/NAME --push
    cosify publish FOLDER ORG/NAME --push --revision v2
    cosify publish FOLDER ORG/NAME --push --create-pr

timm and transformers open the folder, each with cosify and without, in processes of their own, and their labels are
compared.  Then config.json, model.safetensors, the card README.md, results and pictures are uploaded as one commit.
The token comes from `hf auth login` or HF_TOKEN; HF_ENDPOINT names another hub.  If an upload breaks off, run the same
command again: files that are there are not sent again.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cosify.console import Command, set_up_logging, show, two_columns
from cosify.settings import flag

if TYPE_CHECKING:
    from cosify.hub import Publication

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class PublishArguments:
    """Settings of one upload."""

    model: str = flag("", "Run, or a folder of cosify.save. Needed.")
    repo: str = flag("", "Repository on the hub, made if missing. Needed.")
    push: bool = flag(False, "Upload. Default: check and show only.")
    private: bool = flag(False, "Make a private repository. Default: public.")
    revision: str | None = flag(None, "Branch, made if missing. Default: main.")
    create_pr: bool = flag(False, "Open a pull request instead of a commit. Default: commit.")
    message: str = flag("Upload with cosify", "Message of the commit.")


def main(args: PublishArguments) -> None:
    """Check, show, upload."""
    from cosify.cards import check_card
    from cosify.hub import push

    set_up_logging()
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


COMMAND = Command(main, PublishArguments, __doc__, words=("model", "repo"), needed=("model", "repo"))
