"""What a model's features are good for: one pass into a bank, everything else from banks."""

import cosify.lab  # noqa: F401  # one clear error where the extra is missing
from cosify.evaluation.assessment import Assessment, assess
from cosify.evaluation.bank import BankInfo, BankKey, FeatureBank, StaleBankError
from cosify.evaluation.calibrated import Calibrated, calibrate
from cosify.evaluation.calibration_error import Calibration, kappa_calibrations, temperature_calibrations
from cosify.evaluation.decision import Decision, DecisionBatch, Decisions
from cosify.evaluation.detection_metrics import Detection, Interval, detection, threshold_at
from cosify.evaluation.diversity import Diversity, class_angles_deg, feature_diversity, span_angles_deg
from cosify.evaluation.features import FeaturePass, feature_bank
from cosify.evaluation.in_words import verdict
from cosify.evaluation.kappa_scan import KappaScan, scan_bank
from cosify.evaluation.logistic_probe import ProbeResult, Scaling, linear_probe
from cosify.evaluation.mahalanobis import TiedGaussian
from cosify.evaluation.ood_bridge import pytorch_ood_score, to_outlier_scores
from cosify.evaluation.rejector import Rejector
from cosify.evaluation.scores import SCORES
from cosify.evaluation.tables import Table, tables_of
from cosify.evaluation.transferability import Transfer, knn_top1, transfer
from cosify.models.network_identity import check_label_names

__all__ = [
    "SCORES",
    "Assessment",
    "BankInfo",
    "BankKey",
    "Calibrated",
    "Calibration",
    "Decision",
    "DecisionBatch",
    "Decisions",
    "Detection",
    "Diversity",
    "FeatureBank",
    "FeaturePass",
    "Interval",
    "KappaScan",
    "ProbeResult",
    "Rejector",
    "Scaling",
    "StaleBankError",
    "Table",
    "TiedGaussian",
    "Transfer",
    "assess",
    "calibrate",
    "check_label_names",
    "class_angles_deg",
    "detection",
    "feature_bank",
    "feature_diversity",
    "kappa_calibrations",
    "knn_top1",
    "linear_probe",
    "pytorch_ood_score",
    "scan_bank",
    "span_angles_deg",
    "tables_of",
    "temperature_calibrations",
    "threshold_at",
    "to_outlier_scores",
    "transfer",
    "verdict",
]
