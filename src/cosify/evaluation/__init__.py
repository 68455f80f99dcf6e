"""What embeddings are good for: measured on frozen features."""

from cosify.evaluation.embeddings import embeddings
from cosify.evaluation.linear_probe import ProbeResult, Scaling, linear_probe
from cosify.evaluation.logistic_regression import LogisticRegression, fit_logistic

__all__ = [
    "LogisticRegression",
    "ProbeResult",
    "Scaling",
    "embeddings",
    "fit_logistic",
    "linear_probe",
]
