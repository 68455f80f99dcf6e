"""Training of classifiers with Accelerate: settings, loop, checkpoints, statistics of kappa, run folder."""

import cosify.lab  # noqa: F401  # one clear error where the extra is missing
from cosify.errors import Interrupted
from cosify.heads.kappa_statistics import KappaStatistics, KappaSummary
from cosify.settings.training import CosifyArguments, FinetuneArguments, RunArguments, TrainArguments
from cosify.training.adaptation import cosify_pretrained
from cosify.training.checkpoint import Progress
from cosify.training.evaluation import Evaluation, evaluate
from cosify.training.fine_tuning import finetune
from cosify.training.loop import fit
from cosify.training.predict import predict_labels
from cosify.training.result import TrainResult
from cosify.training.run_folder import RunFolder, read_config, read_metrics
from cosify.training.scratch import train
from cosify.training.session import Session

__all__ = [
    "CosifyArguments",
    "Evaluation",
    "FinetuneArguments",
    "Interrupted",
    "KappaStatistics",
    "KappaSummary",
    "Progress",
    "RunArguments",
    "RunFolder",
    "Session",
    "TrainArguments",
    "TrainResult",
    "cosify_pretrained",
    "evaluate",
    "finetune",
    "fit",
    "predict_labels",
    "read_config",
    "read_metrics",
    "train",
]
