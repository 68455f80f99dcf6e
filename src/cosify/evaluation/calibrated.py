"""One kappa for evaluation under which a model's probabilities are right."""

import warnings
from dataclasses import dataclass, replace
from functools import partial

import torch.nn.functional as F
from torch import nn

from cosify.errors import InputError
from cosify.evaluation.calibration_error import LEAST, MOST, Calibration, calibration, fit_kappa, walk
from cosify.evaluation.feature_cache import FeatureCache, check_output
from cosify.evaluation.rows import to_tensor
from cosify.evaluation.split_half import fitted_and_measured
from cosify.functional import cosine
from cosify.heads import CosineHead
from cosify.heads.cosine_head import stock_rows
from cosify.models import linear_classifier
from cosify.models.network_identity import model_digest

FEWEST = 20  # samples; half of them fit one number


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` changed, on samples that kappa was not fitted on.

    Attributes:
        kappa: of the head in evaluation, from now on.
        before: calibration with the kappa that it had.
        after: calibration with the new one; accuracy is the same.
    """

    kappa: float
    before: Calibration
    after: Calibration

    def __repr__(self) -> str:
        return (
            f"kappa {self.before.kappa:.2f} -> {self.kappa:.2f}, ECE {self.before.ece:.3f} -> {self.after.ece:.3f},"
            f" NLL {self.before.nll:.3f} -> {self.after.nll:.3f} on {self.after.num_samples} other samples"
        )


def calibrate(model: nn.Module, cache: FeatureCache) -> Calibrated:
    """Give a model's head the one kappa of least NLL, for evaluation; labels stay as they are.

    Guo et al., ICML 2017, with kappa in the place of 1 / T.  Fitted on half of each class, measured on the other.
    `cosify.save` writes it into the folder as `eval_kappa` for readers with cosify; the norm of the class weights, for
    others, is that of a stock layer's least NLL.  A feature cache or rejector that was made before is then of another
    model: make it again.

    Args:
        model: with one cosine head; its `eval_kappa` and `embedding_norm` are set.
        cache: features of this model, from `cache_features`, of samples that it was not trained on.

    Raises:
        ValueError: if the head is a stock linear one, the cache is another model's or has fewer than 20 samples, the
            model averages two heads, or no finite kappa is best, as where every sample is right.
    """
    head = linear_classifier(model)
    if not isinstance(head, CosineHead):
        raise InputError(
            f"the classifier is a {type(head).__name__}, expected a cosine head; a stock one has a temperature, see"
            " cosify.evaluation.temperature_calibrations"
        )
    check_output(cache.info)
    if cache.info.key.model != model_digest(model):
        raise InputError("the features are of another model, or of this one before it changed; compute them again")
    if len(cache) < FEWEST:
        raise InputError(f"{len(cache)} samples came, expected at least {FEWEST}: half of them fit kappa")
    embedding, labels = to_tensor(cache.embedding), to_tensor(cache.labels)
    fit, measured = fitted_and_measured(cache.labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the error below says it
        kappa = fit_kappa(partial(walk, cosine, embedding[fit], cache.weight), labels[fit])
        # A stock layer divides by one norm where the head divides by each ||x||: which, is fitted as well.
        stock = stock_rows(cache.weight, 1.0, head.embedding_norm.cpu())
        stock_kappa = fit_kappa(partial(walk, F.linear, embedding[fit], stock), labels[fit])
    if not LEAST < kappa < MOST:
        raise InputError(
            f"no kappa from {LEAST} to {MOST} is the best for these {len(labels[fit])} samples: all of them are right,"
            " or no more than by chance; calibrate on more, or on others"
        )
    others = FeatureCache.of_rows(cache.info, cache.weight, None, embedding[measured])
    mean = head.inference_kappa()
    if head.eval_kappa == "sample":
        top = others.top_cosine[:, 0]
        mean = float((others.max_logit[top != 0] / top[top != 0]).mean())  # a zero feature says nothing of its kappa
    before = replace(calibration(others.logits(), labels[measured]), kappa=mean)
    after = calibration(walk(cosine, embedding[measured], cache.weight), labels[measured], kappa=kappa)
    head.eval_kappa = kappa
    head.embedding_norm *= kappa / stock_kappa
    return Calibrated(kappa, before, after)
