"""What each word of the tables means, in one sentence."""

from collections.abc import Mapping

from cosify.evaluation.scores import SCORES
from cosify.evaluation.tables import Table

HEADERS: Mapping[str, str] = {
    "model": "The title that the command gives a model, else its name.",
    "accuracy": "Share of images whose largest logit is that of their label, with the standard error of that share.",
    "mean per class": "Mean of the accuracies of single classes, so that rare classes count as much as frequent ones.",
    "head": "The last layer: softmax for a plain linear one, cosine with its policy for kappa otherwise.",
    "its kappa": "The factor, one over the temperature, that this head multiplies its cosines with in evaluation.",
    "kappa* mean": "Mean over the images of kappa*, the factor with the best least-squares fit (LS, Eq. 11).",
    "median": "Median over the images of kappa*.",
    "at edges": "Share of images whose kappa* is the smallest and the largest candidate: many make the mean doubtful.",
    "to own class": "Mean angle between a feature and the weight of its class, in degrees; small is compact.",
    "to the span of W": "Mean angle between a feature and the space that all class weights span, in degrees.",
    "dimension of the span": "Dimension of the space that the weights of all classes span.",
    "rank": "Number of directions that the features take up, by singular values above a tolerance.",
    "effective rank": "Number of directions weighted by how much lies in each: exp of the singular values' entropy.",
    "99 % PCs": "Principal components that together hold 99 % of the features' variance.",
    "d": "Dimension of the features.",
    "score": "The number that says how sure the model is of an image; larger is surer.",
    "AP": "Average precision: mean share of positives among the accepted, over all thresholds; depends on both counts.",
    "AUROC": "Chance that a positive scores higher than a negative: 0.5 is guessing, 1 is perfect.",
    "FPR95": "Share of negatives accepted at the threshold that accepts 95 % of the positives; small is good.",
    "FPR95, outliers positive": "Share of positives rejected at the threshold that rejects 95 % of the negatives.",
    "AUPR-in": "Area under precision and recall of the positives, by straight lines, as OpenOOD computes it.",
    "AUPR-out": "The same with the negatives as the class to be found.",
    "positives / negatives": "How many images should be accepted, and how many rejected.",
    "kappa": "Which factor multiplies the logits when the model is tested.",
    "factor": "That factor's mean: kappa of a cosine head, one over the temperature of a plain one.",
    "ECE": "Expected calibration error: mean gap between confidence and accuracy, over 15 bins of equal width.",
    "adaptive ECE": "The same over bins of equal numbers of images.",
    "NLL": "Mean negative log-probability of the label, in nats; small is good.",
    "Brier": "Mean squared distance between probabilities and the label, from 0 to 2; small is good.",
    "confidence": "Mean probability of the predicted class; calibrated if it equals the accuracy.",
    "probe": "Top-1 of a linear classifier trained on the frozen features, with its standard error.",
    "5-NN": "Share of images whose label is that of most of their five nearest training images by cosine.",
}
SCORE_CELLS: Mapping[str, str] = {
    "z_max": "Largest cosine between the feature and a class weight.",
    "norm": "Length of the feature.",
    "norm_mahalanobis": "Length of the feature over its Mahalanobis distance to the nearest class mean.",
    "mahalanobis": "Minus the squared Mahalanobis distance to the nearest class mean of the training features.",
    "mahalanobis_unit": "The same with features of length 1.",
    "knn": "Minus the distance to the 50th nearest training feature, all of length 1.",
    "msp": "Log of the probability of the predicted class.",
    "energy": "Log of the sum of the exponentials of all logits.",
    "max_logit": "Largest logit.",
}
KAPPA_CELLS: Mapping[str, str] = {
    "running": "The running mean of kappa over the training batches, one number for all images.",
    "calibrated": "The number that the head was given by calibration before, on whatever images that took.",
    "sample": "A kappa of its own for each image, by Eq. (11).",
    "fitted": "The one number that fits the other half of the test images best.",
    "uncalibrated": "The logits as they are.",
    "temperature": "The temperature that fits the other half of the test images best.",
}
CELLS: Mapping[str, Mapping[str, str]] = {
    "score": {SCORES[name].title: meaning for name, meaning in SCORE_CELLS.items()},
    "kappa": KAPPA_CELLS,
}


def meaning(header: str, cell: str | None = None) -> str | None:
    """Return what a header, or a cell below it, means; None if it speaks for itself.

    Args:
        header: of the column; the name of a set before it, as in "SET, probe", is ignored.
        cell: text of a cell of that column; None for the header.
    """
    if cell is not None:
        return CELLS.get(header, {}).get(cell)
    return HEADERS.get(header) or HEADERS.get(header.rpartition(", ")[2])


def meanings(table: Table) -> dict[str, str]:
    """Return the words of a table that need a sentence, and their sentences, in the table's order."""
    words = [(header, meaning(header)) for header in table.header]
    for place, header in enumerate(table.header):
        words += [(row[place], meaning(header, row[place])) for row in table.rows]
    return {word: sentence for word, sentence in words if sentence is not None}
