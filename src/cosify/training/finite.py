"""NaN and infinity end a run before they are recorded, saved or exported."""

import math

import torch
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.training.checkpoint import Checkpoints, Progress
from cosify.training.evaluation import Evaluation
from cosify.training.session import Session


class FiniteNumbers:
    """The check of a run's numbers.

    Every rank must call `fetch` and `evaluation` together; an error is raised on all ranks.

    Args:
        session: of the run.
        model: the network that trains; under FSDP2 each rank checks its part.
        checkpoints: for the message.
        progress: for the message.
        steps_per_epoch: for the message.
    """

    def __init__(
        self, session: Session, model: nn.Module, checkpoints: Checkpoints, progress: Progress, steps_per_epoch: int
    ) -> None:
        self._session, self._model, self._checkpoints = session, model, checkpoints
        self._progress, self._steps_per_epoch = progress, steps_per_epoch

    def fetch(self, sums: Tensor) -> list[float]:
        """Return the sums of loss, correct and samples over all ranks.

        Raises:
            ValueError: if the loss, or a weight of the model, is not finite.
        """
        totals: list[float] = self._session.all_sum(sums).tolist()
        self._check("training loss", totals[0])
        if int(self._session.all_sum(has_non_finite(self._model))) > 0:
            raise self._diverged("weights are NaN or infinite")
        return totals

    def look(self, sums: Tensor) -> None:
        """Check the loss after a step, if that waits neither for a device nor for other ranks."""
        if sums.device.type == "cpu" and self._session.shard.world_size == 1:
            self._check("training loss", float(sums[0]))

    def evaluation(self, found: Evaluation) -> Evaluation:
        """Return the evaluation, or raise a ValueError if its loss is not finite."""
        self._check("test loss", found.loss)
        return found

    def _check(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise self._diverged(f"the {name} is {value}")

    def _diverged(self, found: str) -> InputError:
        args, step, kept = self._session.args, self._progress.step, self._checkpoints.newest()
        left = "there is no checkpoint before it" if kept is None else f"the checkpoint {kept.name} is kept"
        advice = f"lower --lr (it is {args.lr}), warm it up for longer (warmup_epochs), or clip_grad_norm"
        if args.mixed_precision == "fp16":
            advice += ", or use --mixed-precision bf16"
        return InputError(
            f"{found} in epoch {math.ceil(step / self._steps_per_epoch)}, at step {step}, expected a finite number: the"
            f" training has diverged; {left}, and nothing is exported. Start a new run: {advice}"
        )


def has_non_finite(model: nn.Module) -> Tensor:
    """Return 1 if a weight or buffer that a checkpoint would hold is not finite, else 0: [1], on the device."""
    from torch.distributed.tensor import DTensor

    values = (value.to_local() if isinstance(value, DTensor) else value for value in model.state_dict().values())
    found = [value.isfinite().all() for value in values if value.is_floating_point()]
    return (~torch.stack(found).all()).long().reshape(1)
