"""`KappaCallback`: what the Trainer logs is what the heads saw."""

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cosify
from tests.integrations.trainers import SeenKappa, trainer_of
from tests.processes import run_distributed, run_python

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Trainer's dataloader speaks of pinned memory on a CPU
GRID = cosify.functional.kappa_grid()


def expected(kappas: list[Tensor]) -> dict[str, float]:
    kappa = torch.cat(kappas).double()
    return {
        "kappa_mean": kappa.mean().item(),
        "kappa_median": kappa.median().item(),  # the lower one, as in the paper's grid
        "kappa_low_edge": (kappa <= GRID[0] * 1.00001).double().mean().item(),
        "kappa_high_edge": (kappa >= GRID[-1] * 0.99999).double().mean().item(),
    }


def kappas_of(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key.startswith("kappa")}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_logs_and_trackers_get_kappa_of_the_samples_since_the_last_log(accumulate: int, tmp_path: Path) -> None:
    seen = SeenKappa()
    trainer = trainer_of(
        tmp_path,
        "ls",
        callbacks=[seen, cosify.KappaCallback()],  # a tracker comes before it
        max_steps=4,
        logging_steps=2,
        gradient_accumulation_steps=accumulate,
        eval_strategy="steps",
        eval_steps=4,
    )
    trainer.train()
    assert len(seen.kappas) == 4 * accumulate
    half = 2 * accumulate
    rows = [row for row in trainer.state.log_history if "kappa_mean" in row]
    assert [row["step"] for row in rows] == [2, 4]
    assert all("loss" in row for row in rows)
    for row, kappas in zip(rows, (seen.kappas[:half], seen.kappas[half:]), strict=True):
        assert kappas_of(row) == pytest.approx(expected(kappas), rel=1e-6)
        assert any(kappas_of(told) == kappas_of(row) for told in seen.logged), "trackers were not told"
    assert rows[0]["kappa_mean"] != rows[1]["kappa_mean"]


@pytest.mark.parametrize("kappa", [0.1, 200.0])
def test_a_fixed_kappa_has_no_edges(kappa: float, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, kappa, callbacks=[cosify.KappaCallback()], max_steps=1, logging_steps=1)
    trainer.train()
    assert kappas_of(trainer.state.log_history[0]) == pytest.approx({"kappa_mean": kappa, "kappa_median": kappa})


def test_without_logs_kappa_comes_with_the_evaluation(tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path,
        "ls",
        callbacks=[cosify.KappaCallback()],
        num_train_epochs=1,
        logging_strategy="no",
        eval_strategy="epoch",
    )
    trainer.train()
    (row,) = (row for row in trainer.state.log_history if "kappa_mean" in row)
    assert "eval_loss" in row


def test_the_device_is_read_only_to_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cosify.heads.kappa_watch import KappaWatch

    reads: list[int] = []
    read = KappaWatch.read

    def counted(self: KappaWatch, **settings: bool) -> dict[str, float]:
        reads.append(1)
        return read(self, **settings)

    monkeypatch.setattr(KappaWatch, "read", counted)
    trainer = trainer_of(tmp_path, "ls", callbacks=[cosify.KappaCallback()], max_steps=6, logging_steps=3)
    trainer.train()
    assert len(reads) == 2


@pytest.mark.slow
def test_compiled_and_resumed(tmp_path: Path) -> None:
    settings = {"max_steps": 4, "logging_steps": 1, "save_strategy": "steps", "save_steps": 2}
    seen, whole = SeenKappa(), trainer_of(tmp_path / "whole", "ls", callbacks=[cosify.KappaCallback()], **settings)
    whole.train()
    settings |= {"torch_compile": True, "torch_compile_backend": "aot_eager"}
    rest = trainer_of(tmp_path / "rest", "ls", callbacks=[cosify.KappaCallback(), seen], **settings)
    rest.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert len(seen.kappas) == 2
    logged = [[row for row in each.state.log_history if "kappa_mean" in row] for each in (whole, rest)]
    assert [row["step"] for row in logged[1]] == [1, 2, 3, 4]
    for row, kappa in zip(logged[1][2:], seen.kappas, strict=True):
        assert kappas_of(row) == pytest.approx(expected([kappa]), rel=1e-6)


@pytest.mark.slow
def test_two_ranks_log_kappa_of_all_samples(tmp_path: Path) -> None:
    run_distributed("tests.integrations.callback_worker", tmp_path, 2)
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    seen = [[torch.tensor(kappas) for kappas in each["seen"]] for each in (first, second)]
    assert not torch.equal(torch.cat(seen[0]), torch.cat(seen[1])), "both ranks saw the same samples"
    for index, row in enumerate(first["logged"]):
        part = slice(2 * index, 2 * index + 2)
        assert kappas_of(row) == pytest.approx(expected(seen[0][part] + seen[1][part]), rel=1e-6)
    assert len(first["logged"]) == 2
    assert [kappas_of(row) for row in second["logged"]] == [kappas_of(row) for row in first["logged"]]


def test_a_model_without_a_cosine_head_is_named_and_trains(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = trainer_of(tmp_path, None, callbacks=[cosify.KappaCallback()], max_steps=1, logging_steps=1)
    with caplog.at_level(logging.WARNING, logger="cosify"):
        trainer.train()
    assert caplog.text.count("KappaCallback finds no cosine head in ViTForImageClassification") == 1
    assert not any("kappa_mean" in row for row in trainer.state.log_history)


def test_heads_that_stay_untouched_are_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosify.CosineLinear, "record", lambda *_: None)  # as if copies of the head were trained
    trainer = trainer_of(tmp_path, "ls", callbacks=[cosify.KappaCallback()], max_steps=2, logging_steps=1)
    with caplog.at_level(logging.WARNING, logger="cosify"):
        trainer.train()
    assert caplog.text.count("KappaCallback sees no kappa after a step: under nn.DataParallel") == 1
    assert not any("kappa_mean" in row for row in trainer.state.log_history)


@pytest.mark.slow
def test_the_name_is_lazy() -> None:
    code = "import sys, cosify; assert 'transformers' not in sys.modules; print(cosify.KappaCallback.__name__)"
    assert run_python("-c", code) == "KappaCallback\n"
    with pytest.raises(AttributeError, match=r"module 'cosify' has no attribute 'KapaCallback'"):
        _ = cosify.KapaCallback
