"""Check of a card before it is published: it must say what the files beside it say."""

from pathlib import Path

from cosify.cards.collection import rendered
from cosify.cards.facts import Facts
from cosify.errors import InputError
from cosify.evaluation import Rejector
from cosify.hub.contents import FACTS, REJECTOR


def check_card(folder: Path, repo_id: str) -> None:
    """Compare the card in a folder with the files beside it; pass this to `cosify.push`.

    Args:
        folder: to be published; one without facts.yaml passes, if its rejector does.
        repo_id: `OWNER/NAME` to publish it as.

    Raises:
        ValueError: if the card is written for another repository, or does not agree with the files, or a rejector
            beside it is of another model.
    """
    if (folder / REJECTOR).is_file():
        Rejector.load(folder).check_model()
    if not (folder / FACTS).is_file():
        return
    expected = Facts.read(folder / FACTS).repo_id
    if repo_id != expected:
        raise InputError(
            f"the repository is {repo_id}, and the card of {folder} is written for {expected}; change repo_id in"
            f" {FACTS} and run cosify card again"
        )
    for file, text in rendered(folder).items():
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            raise InputError(f"{file} is not what the files beside it say, expected their card; run cosify card")
