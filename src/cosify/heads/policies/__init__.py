"""Kappa policies by name."""

from cosify.heads.policies.policy import Estimate, Geometry, KappaPolicy
from cosify.heads.policies.registry import POLICIES, resolve_policy

__all__ = ["POLICIES", "Estimate", "Geometry", "KappaPolicy", "resolve_policy"]
