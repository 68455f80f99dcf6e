"""Cards of published models, made from facts that people know and from records of runs."""

import cosify.lab  # noqa: F401  # one clear error where the extra is missing
from cosify.cards.card import family_table, render
from cosify.cards.check import check_card
from cosify.cards.collection import (
    add_evaluation,
    add_finetuned,
    add_transfer,
    add_verification,
    collect,
    render_all,
    rendered,
)
from cosify.cards.facts import Facts
from cosify.cards.info import CardInfo

__all__ = [
    "CardInfo",
    "Facts",
    "add_evaluation",
    "add_finetuned",
    "add_transfer",
    "add_verification",
    "check_card",
    "collect",
    "family_table",
    "render",
    "render_all",
    "rendered",
]
