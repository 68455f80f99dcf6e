"""Every word of every table has its sentence, and no sentence is left without a word."""

import torch

from cosify.evaluation import SCORES, assess, tables_of, transfer
from cosify.evaluation.terms import HEADERS, KAPPA_CELLS, SCORE_CELLS, meaning, meanings
from tests.evaluation.banks import make_bank


def test_every_word_is_explained() -> None:
    used = set()
    for kappa in (16.0, None):
        train, test = (make_bank(200, seed=seed, spread=1.0, kappa=kappa) for seed in (1, 2))
        far, tasks = make_bank(labels=torch.full((60,), -1), seed=3, kappa=kappa), make_bank(100, seed=5)
        done = {"a, task": transfer(tasks, lambdas=(1.0,))}
        assessment = assess("score", test, train, ood={"far": far}, transfer=done, resamples=100)
        for table in tables_of([assessment]):
            found = meanings(table)
            used |= set(found)
            assert [header for header in table.header if header not in found] == []
            for column in ("score", "kappa"):
                if column in table.header:
                    place = table.header.index(column)
                    assert [row[place] for row in table.rows if row[place] not in found] == []
            assert "score" not in found or "score" in table.header, "a model of that title is no word"
    plain = {word.removeprefix("a, task, ") for word in used}
    assert plain == {*HEADERS, *KAPPA_CELLS, *(SCORES[name].title for name in SCORE_CELLS)}
    assert set(SCORE_CELLS) == set(SCORES)


def test_what_speaks_for_itself() -> None:
    assert meaning("AP", "0.943 [0.933, 0.953]") is None
    assert meaning("model", "z_max") is None
    assert meaning("a column of somebody else") is None
