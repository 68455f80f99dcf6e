"""Cosine-softmax classifier layers and their kappa policies."""

from cosify.heads.cosine_head import CosineConv1x1, CosineHead, CosineLinear, EvalKappa
from cosify.heads.policies import POLICIES, KappaPolicy, resolve_policy
from cosify.heads.spec import HeadSpec

__all__ = [
    "POLICIES",
    "CosineConv1x1",
    "CosineHead",
    "CosineLinear",
    "EvalKappa",
    "HeadSpec",
    "KappaPolicy",
    "resolve_policy",
]
