"""What a model's features are good for: one pass into a bank, everything else from banks."""

from cosify.evaluation.assess import Assessment, assess
from cosify.evaluation.bank import BankInfo, BankKey, FeatureBank, StaleBankError
from cosify.evaluation.calibration import Calibration, kappa_calibrations, temperature_calibrations
from cosify.evaluation.detection import Detection, Interval, detection, threshold_at
from cosify.evaluation.diversity import Diversity, class_angles_deg, feature_diversity, span_angles_deg
from cosify.evaluation.features import FeaturePass, feature_bank
from cosify.evaluation.kappa_scan import KappaScan, scan_bank
from cosify.evaluation.linear_probe import ProbeResult, Scaling, linear_probe
from cosify.evaluation.mahalanobis import TiedGaussian
from cosify.evaluation.ood_bridge import pytorch_ood_score, to_outlier_scores
from cosify.evaluation.rejector import Decision, Rejector
from cosify.evaluation.scores import SCORES
from cosify.evaluation.tables import Table, tables_of
from cosify.evaluation.transfer import Transfer, knn_top1, transfer
from cosify.models.model_digest import check_label_names

__all__ = [
    "SCORES",
    "Assessment",
    "BankInfo",
    "BankKey",
    "Calibration",
    "Decision",
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
]
