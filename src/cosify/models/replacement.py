"""Put cosine heads in the place of a model's classifier layers."""

from torch import nn

from cosify.heads import CosineConv1x1, CosineHead, CosineLinear, HeadSpec
from cosify.heads.spec import HeadStart
from cosify.models.classifiers import find_classifiers, owner_of_classifier


def replace_classifiers(model: nn.Module, spec: HeadSpec, num_new: int | None = None) -> dict[str, CosineHead]:
    """Replace the classifier layers of a model by cosine heads, which keep their weights.

    Args:
        model: of timm or transformers.
        spec: of the heads.
        num_new: classes of new weights instead, for a model that cannot reset its classifier.

    Returns:
        The heads by name, relative to the owner of the classifier; empty for a model with `num_classes=0`.
    """
    owner, prefix = owner_of_classifier(model)
    leaves = {name.removeprefix(prefix): leaf for name, leaf in find_classifiers(model).items()}
    # All heads are made before the first is put in, so that an error leaves the model as it was.
    heads = {name: _make_head(leaf, spec, spec.starts.get(name), num_new) for name, leaf in leaves.items()}
    for name, head in heads.items():
        owner.set_submodule(name, head)
    return heads


def _make_head(leaf: nn.Module, spec: HeadSpec, start: HeadStart | None, num_new: int | None) -> CosineHead:
    """Return the head for a layer: with its weight, or with a new weight of `num_new` classes."""
    assert isinstance(leaf, (nn.Linear, nn.Conv2d))
    num_outputs, in_features = leaf.weight.shape[:2]
    num_classes = num_outputs if num_new is None else num_new
    if start is None and isinstance(leaf, CosineHead) and leaf.kappa_spec == spec.kappa and not leaf.kappa.is_meta:
        start = HeadSpec.of_heads({"": leaf}).starts[""]  # the same policy goes on from where it was
    if num_new is not None:
        start = None
    elif start is not None and start.num_classes != num_classes:
        spec, start = spec.for_new_classes(), None  # the kappa of other classes does not apply
    head = (CosineConv1x1 if isinstance(leaf, nn.Conv2d) else CosineLinear)(
        in_features,
        num_classes,
        kappa=spec.kappa,
        eval_kappa=spec.eval_kappa,
        start_kappa=None if start is None else start.kappa,
        start_norm=None if start is None else start.embedding_norm,
        device=leaf.weight.device,
        dtype=leaf.weight.dtype,
    )
    if num_new is None:
        head.weight = leaf.weight
    return head.train(leaf.training)
