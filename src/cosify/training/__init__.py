"""Training of classifiers with Accelerate: settings, loop, statistics of kappa, run folder."""

from cosify.training.arguments import TrainArguments, parse_arguments
from cosify.training.evaluate import Evaluation, evaluate
from cosify.training.kappa_statistics import KappaStatistics, KappaSummary
from cosify.training.loop import TrainResult, train
from cosify.training.predict import predict_labels
from cosify.training.run_folder import RunFolder, read_metrics

__all__ = [
    "Evaluation",
    "KappaStatistics",
    "KappaSummary",
    "RunFolder",
    "TrainArguments",
    "TrainResult",
    "evaluate",
    "parse_arguments",
    "predict_labels",
    "read_metrics",
    "train",
]
