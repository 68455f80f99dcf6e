"""The paper's equations as pure functions on tensors."""

from cosify.functional.grid import adacos_kappa, expected_kappa, kappa_grid
from cosify.functional.loss import cosine_softmax_loss, simplified_loss
from cosify.functional.ls import LsSolution, ls_energy, ls_kappa
from cosify.functional.ml import ml_kappa
from cosify.functional.rule import rule_kappa
from cosify.functional.similarity import cosine

__all__ = [
    "LsSolution",
    "adacos_kappa",
    "cosine",
    "cosine_softmax_loss",
    "expected_kappa",
    "kappa_grid",
    "ls_energy",
    "ls_kappa",
    "ml_kappa",
    "rule_kappa",
    "simplified_loss",
]
