"""Figures from the files of a run, and from what was measured on a model."""

import cosify.lab  # noqa: F401  # one clear error where the extra is missing
from cosify.plots.accuracy_by_kappa import Accuracy, plot_accuracy_by_kappa
from cosify.plots.angles import plot_angles
from cosify.plots.class_sizes import ClassAccuracies, plot_class_sizes
from cosify.plots.detection import plot_detection_bars, plot_score_histograms
from cosify.plots.examples import Example, ExampleGroup, Examples, find_examples
from cosify.plots.figures import Figure, Subject, draw_figures
from cosify.plots.kappa_by_num_classes import plot_kappa_by_num_classes
from cosify.plots.kappa_classes import plot_kappa_by_class, plot_kappa_histogram
from cosify.plots.kappa_epochs import plot_kappa_epochs
from cosify.plots.kappa_trace import plot_kappa_trace
from cosify.plots.kappa_tradeoff import plot_kappa_tradeoff
from cosify.plots.loss_curves import plot_simplified_loss
from cosify.plots.ls_search import plot_ls_search
from cosify.plots.reliability import plot_reliability
from cosify.plots.report import write_report
from cosify.plots.tsne import plot_tsne
from cosify.plots.verification import plot_verification

__all__ = [
    "Accuracy",
    "ClassAccuracies",
    "Example",
    "ExampleGroup",
    "Examples",
    "Figure",
    "Subject",
    "draw_figures",
    "find_examples",
    "plot_accuracy_by_kappa",
    "plot_angles",
    "plot_class_sizes",
    "plot_detection_bars",
    "plot_kappa_by_class",
    "plot_kappa_by_num_classes",
    "plot_kappa_epochs",
    "plot_kappa_histogram",
    "plot_kappa_trace",
    "plot_kappa_tradeoff",
    "plot_ls_search",
    "plot_reliability",
    "plot_score_histograms",
    "plot_simplified_loss",
    "plot_tsne",
    "plot_verification",
    "write_report",
]
