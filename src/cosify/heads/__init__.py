"""Cosine-softmax classifier layers and their kappa policies."""

from cosify.heads.class_parallel import ClassParallelCosineLinear
from cosify.heads.class_parallel_file import load_class_parallel, save_class_parallel
from cosify.heads.cosine_head import CosineConv1x1, CosineHead, CosineLinear
from cosify.heads.cosine_loss import CosineSoftmaxLoss
from cosify.heads.policies import POLICIES, KappaPolicy, resolve_policy
from cosify.heads.running_kappa import EvalKappa
from cosify.heads.spec import HeadSpec

__all__ = [
    "POLICIES",
    "ClassParallelCosineLinear",
    "CosineConv1x1",
    "CosineHead",
    "CosineLinear",
    "CosineSoftmaxLoss",
    "EvalKappa",
    "HeadSpec",
    "KappaPolicy",
    "load_class_parallel",
    "resolve_policy",
    "save_class_parallel",
]
