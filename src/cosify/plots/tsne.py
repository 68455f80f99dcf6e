"""Maps of the embeddings of several models, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cosify.errors import InputError
from cosify.plots.checks import Floats, check_same_keys, check_some, class_indices, finite
from cosify.plots.style import (
    FIRM_SPACE,
    MEDIUM,
    PALETTE,
    SMALL,
    grid_of,
    legend_below,
    look,
    new_figure,
    save,
    width_of,
    wrapped,
)

MOST_CLASSES = len(PALETTE)
FEWEST_SAMPLES = 4  # a perplexity of 1


def perplexity_of(num_samples: int) -> float:
    """Return t-SNE's perplexity, 30 or what the number of samples allows."""
    return min(30.0, (num_samples - 1) / 3)


def tsne_map(rows: Floats, seed: int = 0) -> NDArray[np.float32]:
    """Return the t-SNE map [N, 2] of unit rows [N, d], by cosine distance, started from their principal components."""
    from sklearn.manifold import TSNE

    mapper = TSNE(metric="cosine", init="pca", perplexity=perplexity_of(len(rows)), random_state=seed)
    return np.asarray(mapper.fit_transform(rows.astype(np.float32)))


def plot_tsne(
    embeddings: Mapping[str, ArrayLike],
    labels: Mapping[str, ArrayLike],
    label_names: Sequence[str],
    output: Path | str,
    *,
    seed: int = 0,
) -> Path:
    """Draw one t-SNE map for each model, classes by colour and marker.

    Kobayashi, Figure 3.  Distances of one map do not compare with those of another.  Deviation: the paper does not
    name its settings; these are cosine distance, perplexity 30 (less below 91 samples) and a start from PCA.

    Args:
        embeddings: model -> [N, d], N >= 4, d >= 2, any norm but 0.
        labels: model -> class indices [N] in [0, number of names).
        label_names: name of each class, at most 10.
        output: PNG file.
        seed: of t-SNE.

    Returns:
        The file.

    Raises:
        ValueError: for more than 10 classes, no model, models without labels, too few samples, a zero row, NaN, or
            labels out of range.
    """
    if len(label_names) > MOST_CLASSES:
        raise InputError(
            f"label_names has {len(label_names)} classes, expected at most {MOST_CLASSES}, which a reader can tell"
            " apart; choose some of them"
        )
    check_some("embeddings", embeddings)
    check_same_keys("embeddings", embeddings, "labels", labels)
    units = {name: _unit_rows(f"embeddings[{name!r}]", rows) for name, rows in embeddings.items()}
    classes = {
        name: class_indices(f"labels[{name!r}]", labels[name], len(rows), label_names) for name, rows in units.items()
    }
    rows_of, columns = grid_of(len(units))
    width = width_of(columns)
    figure = new_figure(rows_of * width / columns + 0.8, width)
    axes = figure.subplots(rows_of, columns, squeeze=False).ravel()
    handles = {}
    for axis, (name, unit) in zip(axes, units.items(), strict=False):
        points = tsne_map(unit, seed)
        size = float(np.clip(6000 / len(unit), 6, 40)) * (1 if columns < 3 else 0.6)
        for index in np.unique(classes[name]):
            style, of_class = look(index), classes[name] == index
            handles[index] = axis.scatter(
                *points[of_class].T, s=size, c=style.colour, marker=style.marker, alpha=0.75, linewidths=0
            )
        axis.set_title(wrapped(f"{name}, N{FIRM_SPACE}={FIRM_SPACE}{len(unit)}", width / columns - 0.1), fontsize=SMALL)
        axis.set(xticks=[], yticks=[])  # the map has no unit
        axis.set_aspect("equal", "datalim")
    for axis in axes[len(units) :]:
        axis.set_visible(False)
    shown = sorted(handles)
    legend_below(figure, [handles[index] for index in shown], [label_names[index] for index in shown], markerscale=1.5)
    title = "t-SNE of unit embeddings (cosine distance; axes have no unit)"
    figure.suptitle(title, fontsize=MEDIUM)
    return save(figure, output)


def _unit_rows(name: str, rows: ArrayLike) -> Floats:
    array = finite(name, rows, "[N, d]")
    if len(array) < FEWEST_SAMPLES or array.shape[1] < 2:
        raise InputError(
            f"{name} has shape {list(array.shape)}, expected [N, d] with N >= {FEWEST_SAMPLES} and d >= 2; take more"
            " samples"
        )
    largest = np.abs(array).max(axis=1, keepdims=True)
    if not largest.all():
        raise InputError(
            f"{name} has {int((largest == 0).sum())} zero rows, expected none; they have no angle, drop them"
        )
    scaled = np.ldexp(array, -np.frexp(largest)[1])  # by a power of two: no square overflows, no digit changes
    unit: Floats = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return unit
