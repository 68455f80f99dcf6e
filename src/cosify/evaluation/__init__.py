"""What a model's features are good for: one pass into a feature cache, and every measurement from there."""

import warnings
from typing import TYPE_CHECKING, Any

import cosify.lab  # noqa: F401  # one clear error where the extra is missing
from cosify.evaluation.assessment import Assessment, assess
from cosify.evaluation.calibrated import Calibrated, calibrate
from cosify.evaluation.calibration_error import Calibration, kappa_calibrations, temperature_calibrations
from cosify.evaluation.corrections import GroupAccuracy, group_accuracies
from cosify.evaluation.decision import Decision, DecisionBatch, Decisions
from cosify.evaluation.detection_metrics import Detection, Interval, detection, threshold_at
from cosify.evaluation.diversity import Diversity, class_angles_deg, feature_diversity, span_angles_deg
from cosify.evaluation.feature_cache import CacheInfo, CacheKey, FeatureCache, StaleCacheError
from cosify.evaluation.features import FeaturePass, cache_features
from cosify.evaluation.in_words import verdict
from cosify.evaluation.kappa_scan import KappaScan, scan_features
from cosify.evaluation.logistic_probe import ProbeResult, Scaling, correct_by_probe, linear_probe
from cosify.evaluation.long_tail import LongTailAccuracy, long_tail_accuracy
from cosify.evaluation.mahalanobis import TiedGaussian
from cosify.evaluation.ood_bridge import pytorch_ood_score, to_outlier_scores
from cosify.evaluation.pair_embeddings import pair_cosines, verification_embeddings
from cosify.evaluation.rejector import Rejector
from cosify.evaluation.scores import SCORES
from cosify.evaluation.tables import Table, tables_of
from cosify.evaluation.tau_normalization import tau_normalize, tau_normalized
from cosify.evaluation.transferability import Transfer, knn_top1, transfer
from cosify.evaluation.verification import Verification, check_folds, verify_pairs
from cosify.functional.prior import adjust_logits, log_prior
from cosify.models.network_identity import check_label_names

__all__ = [
    "SCORES",
    "Assessment",
    "CacheInfo",
    "CacheKey",
    "Calibrated",
    "Calibration",
    "Decision",
    "DecisionBatch",
    "Decisions",
    "Detection",
    "Diversity",
    "FeatureCache",
    "FeaturePass",
    "GroupAccuracy",
    "Interval",
    "KappaScan",
    "LongTailAccuracy",
    "ProbeResult",
    "Rejector",
    "Scaling",
    "StaleCacheError",
    "Table",
    "TiedGaussian",
    "Transfer",
    "Verification",
    "adjust_logits",
    "assess",
    "cache_features",
    "calibrate",
    "check_folds",
    "check_label_names",
    "class_angles_deg",
    "correct_by_probe",
    "detection",
    "feature_diversity",
    "group_accuracies",
    "kappa_calibrations",
    "knn_top1",
    "linear_probe",
    "log_prior",
    "long_tail_accuracy",
    "pair_cosines",
    "pytorch_ood_score",
    "scan_features",
    "span_angles_deg",
    "tables_of",
    "tau_normalize",
    "tau_normalized",
    "temperature_calibrations",
    "threshold_at",
    "to_outlier_scores",
    "transfer",
    "verdict",
    "verification_embeddings",
    "verify_pairs",
]

# Names of earlier versions, and what each is called now.
_RENAMED = {
    "BankInfo": "CacheInfo",
    "BankKey": "CacheKey",
    "FeatureBank": "FeatureCache",
    "StaleBankError": "StaleCacheError",
    "feature_bank": "cache_features",
    "scan_bank": "scan_features",
}

if not TYPE_CHECKING:  # or every misspelt name would pass

    def __getattr__(name: str) -> Any:
        if name not in _RENAMED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        message = f"{__name__}.{name} is now called {_RENAMED[name]}; use that name"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return globals()[_RENAMED[name]]
