"""Every word of every table has its sentence, and no sentence is left without a word."""

import dataclasses

import torch

from cosify.evaluation import SCORES, assess, tables_of, transfer
from cosify.evaluation.terms import HEADERS, KAPPA_CELLS, SCORE_CELLS, meaning, meanings
from tests.evaluation.caches import make_cache


def test_every_word_is_explained() -> None:
    used = set()
    for kappa, eval_kappa in ((16.0, "running"), (16.0, 9.0), (None, None)):
        train, test = (make_cache(200, seed=seed, spread=1.0, kappa=kappa) for seed in (1, 2))
        test = dataclasses.replace(test, info=dataclasses.replace(test.info, eval_kappa=eval_kappa))
        far, tasks = make_cache(labels=torch.full((60,), -1), seed=3, kappa=kappa), make_cache(100, seed=5)
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
