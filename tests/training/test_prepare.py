"""What is made of a session and a network before the first step."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cosify.training import Session, TrainArguments
from cosify.training.model import ModelChoice, build_model, preprocessing_of
from cosify.training.prepare import Prepared
from cosify.training.session import smoke_settings


def prepared(folder: Path, **settings: Any) -> Prepared:
    args = TrainArguments(data="synthetic", batch_size=64, tracker="none", output=str(folder / "run"), **settings)
    choice = ModelChoice.of(args)
    session = Session.open(args, "prepared", preprocessing_of(choice, pretrained=False))
    return Prepared(session, build_model(choice, args, 10, 1))


def test_steps_heads_and_ema(tmp_path: Path) -> None:
    parts = prepared(tmp_path, epochs=3, accumulate=2, ema_decay=0.9, kappa="trainable")
    assert (parts.steps_per_epoch, parts.total_steps) == (2, 6)
    (head,) = parts.heads
    assert parts.start_kappa == head.start_kappa
    assert parts.evaluated is parts.ema.module is not parts.model
    assert parts.whole is None


def test_a_smoke_test_shortens_a_recipe_that_ends_without_mixup() -> None:
    args = smoke_settings(TrainArguments(smoke=True, epochs=200, mixup=0.2, mix_off_epochs=15))
    assert (args.epochs, args.mix_off_epochs) == (10, 9)


def test_batch_norms_are_synchronised_where_asked(tmp_path: Path) -> None:
    for number, asked in enumerate((False, True)):
        parts = prepared(tmp_path / str(number), sync_batch_norm=asked)
        norms = [each for each in parts.model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
        assert all(isinstance(each, nn.SyncBatchNorm) == asked for each in norms)
        assert len(norms) > 5
        assert parts.evaluated is parts.model


def test_a_loss_goes_backward_once(tmp_path: Path) -> None:
    parts = prepared(tmp_path)
    weight = torch.ones((), requires_grad=True)
    parts.backward(3 * weight)
    assert float(weight.grad or 0) == 3  # type: ignore[arg-type]
