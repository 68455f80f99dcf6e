"""Embeddings of pictures as face verification takes them: of a picture and its mirror image together."""

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosify.data import PicturePairs, Preprocessing, Splits
from cosify.data.batches import eval_rows
from cosify.errors import InputError
from cosify.evaluation.features import FeaturePass, check_finite, open_unaugmented, shown
from cosify.functional.similarity import unit_rows
from cosify.models import in_evaluation, linear_classifier

logger = logging.getLogger("cosify")


@torch.no_grad()
def verification_embeddings(
    model: nn.Module, images: Splits, preprocessing: Preprocessing, run: FeaturePass | None = None
) -> Tensor:
    """Return the unit embedding of each picture: that of the picture plus that of its mirror image, then normalised.

    As insightface's arcface_torch/eval/verification.py.  An embedding is what the model's classifier is given, of the
    model in evaluation mode and in the weights' own precision.

    Args:
        model: of timm or transformers, with a classifier, on the device that is to run it; its mode is restored.
        images: their test split is used; see `cosify.data.load_images`.
        preprocessing: what the model expects, such as `Preprocessing.of_pretrained(model)`; the mirror is its result's.
        run: batch size and processes that decode, all in one process; None for the usual ones.

    Returns:
        [N, d], float32, on the CPU, in the order of the images.  A zero embedding stays zero, with a warning.

    Raises:
        ValueError: if the model has no classifier or gives NaN, images cannot be read, or `run` has several processes.
    """
    run = FeaturePass() if run is None else run
    if run.shard.world_size != 1:
        raise InputError(f"the pass is one of {run.shard.world_size} processes, expected one; drop shard")
    classifier = linear_classifier(model)
    data = open_unaugmented(images, preprocessing, classifier.weight.device, run)
    num_samples, found = len(images.test), []
    batch_size = run.at_once(classifier.weight.device, data.image_shape)
    all_rows = list(eval_rows(num_samples, batch_size))
    batches = shown(data.test_batches(batch_size), len(all_rows), f"{num_samples} pictures", run)
    with in_evaluation(model, classifier) as answers:
        for rows, (pixels, _) in zip(all_rows, batches, strict=True):
            both = answers(pixels)[0] + answers(pixels.flip(-1))[0]
            check_finite(rows, both)
            found.append(unit_rows(both).cpu())
    embedding = torch.cat(found)
    num_zero = int((embedding == 0).all(dim=1).sum())
    if num_zero:
        logger.warning("%d of %d pictures have a zero embedding; its cosines are 0", num_zero, num_samples)
    return embedding


def pair_cosines(
    model: nn.Module, pairs: PicturePairs, preprocessing: Preprocessing, run: FeaturePass | None = None
) -> NDArray[np.float64]:
    """Return the cosine [N] of each pair's `verification_embeddings`, for `verify_pairs`.

    Args:
        model: as there.
        pairs: of `cosify.data.open_pairs`.
        preprocessing: as there.
        run: as there.

    Raises:
        ValueError: as there.
    """
    embedding = verification_embeddings(model, pairs.images, preprocessing, run).double().numpy()
    cosines: NDArray[np.float64] = (embedding[pairs.first] * embedding[pairs.second]).sum(axis=1)
    return cosines
