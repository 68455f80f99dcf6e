"""Evaluations on the test split, and the choice of weights to keep and to export."""

from torch import nn

from cosify.training.checkpoint import Checkpoints, Progress
from cosify.training.class_parallel import all_classes
from cosify.training.evaluation import EVAL_BATCH, Evaluation, evaluate
from cosify.training.finite import FiniteNumbers
from cosify.training.prepare import Prepared
from cosify.training.session import Session
from cosify.training.sharding import gather_weights, take_buffers_of_main


class Selection:
    """The evaluations of a run.  All ranks must call each method together.

    Args:
        session: of the run.
        parts: of the run.
        checkpoints: keep the best weights.
        finite: checks the numbers.
    """

    def __init__(self, session: Session, parts: Prepared, checkpoints: Checkpoints, finite: FiniteNumbers) -> None:
        self._session, self._parts, self._checkpoints, self._finite = session, parts, checkpoints, finite

    def measure(self) -> Evaluation:
        """Measure the network as it is."""
        if self._parts.whole is not None:
            gather_weights(self._parts.model, self._parts.whole)
        return self._measure(self._parts.evaluated)

    def _measure(self, model: nn.Module) -> Evaluation:
        # Unwrapped: DDP's forward would synchronise buffers, and ranks may differ by a batch.
        session = self._session
        if session.shard.world_size > 1:
            take_buffers_of_main(model)
        batches = session.data.test_batches(max(session.args.batch_size, EVAL_BATCH), session.shard)
        found = evaluate(model, batches, device=session.accelerator.device, all_sum=session.all_sum)
        return self._finite.evaluation(found)

    def note(self, evaluation: Evaluation, progress: Progress) -> None:
        """Keep the weights of the best evaluation; mark the run as done if no better one came for long enough."""
        patience = self._session.args.early_stop_evaluations
        progress.since_best += 1
        if progress.best_accuracy is None or evaluation.accuracy > progress.best_accuracy:
            progress.best_accuracy, progress.since_best = evaluation.accuracy, 0
            what = f"the best weights of step {progress.step}"
            with all_classes(self._parts.evaluated):
                self._checkpoints.on_main_process(lambda: self._checkpoints.save_best(self._parts.evaluated), what)
        progress.done |= patience is not None and progress.since_best >= patience

    def final(self, last: Evaluation | None) -> tuple[nn.Module, Evaluation]:
        """Return the network to export, and its evaluation.

        Args:
            last: of the last step; None for a run that was resumed after its end.
        """
        model = self._parts.evaluated
        if self._session.args.export == "best":
            self._checkpoints.load_best(model)
            return model, self._measure(model)
        return model, self.measure() if last is None else last
