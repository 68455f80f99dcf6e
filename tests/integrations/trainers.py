"""A tiny transformers Trainer, and a callback of a user's own that knows each kappa of its model."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import cosify
from tests.integrations.tiny_vit import vit

ROWS = 24


class SeenKappa(transformers.TrainerCallback):
    """Keeps kappa of each training batch, and, as a tracker does, what it is told to log."""

    def __init__(self) -> None:
        self.kappas: list[Tensor] = []
        self.logged: list[dict[str, float]] = []

    def on_substep_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        self.kappas += [head.last_kappa.clone() for head in cosify.find_heads(model).values()]

    on_step_end = on_substep_end

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, float], **kwargs: Any) -> None:
        self.logged.append(dict(logs))


def trainer_of(output: Path, kappa: float | str | None, *, callbacks: list[Any], **settings: Any) -> Any:
    """Return a Trainer of a tiny ViT on noise; its batches hold 4 rows, the last of an epoch may be shorter."""
    model = vit()
    if kappa is not None:
        cosify.convert(model, kappa)
    rows = [{"pixel_values": torch.randn(3, 32, 32), "labels": index % 5} for index in range(ROWS)]
    given = {"report_to": [], "save_strategy": "no", **settings}
    arguments = transformers.TrainingArguments(
        str(output), use_cpu=True, disable_tqdm=True, per_device_train_batch_size=4, learning_rate=0.01, **given
    )
    return transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:5], callbacks=callbacks
    )
