"""Figures from the files of a run."""

from cosify.plots.kappa_trace import plot_kappa_trace

__all__ = ["plot_kappa_trace"]
