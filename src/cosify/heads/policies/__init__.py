"""Kappa policies by name."""

from cosify.heads.policies.policy import Estimate, Geometry, KappaPolicy, mean_of_counted
from cosify.heads.policies.registry import POLICIES, plain, resolve_policy

__all__ = ["POLICIES", "Estimate", "Geometry", "KappaPolicy", "mean_of_counted", "plain", "resolve_policy"]
