"""Find the final classifier layers of a timm or transformers model."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from cosify.errors import InputError
from cosify.heads import CosineHead


def find_classifiers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that map embeddings to class scores, by module name.

    timm declares its classifiers in `default_cfg["classifier"]` and returns them from `get_classifier()`; neither is
    complete (LeViT-S8 declares one of its two heads, `NormLinear` and `ModuleList` are containers), so the union is
    taken and inside each the last linear or 1x1 convolution with `num_classes` outputs.  transformers models register
    theirs last, so it is the last layer of the last child that has one, and of that child's twins (DeiT's teacher).  A
    layer elsewhere is no classifier, whatever its width.

    Args:
        model: a timm model, or a transformers `...ForImageClassification`.

    Returns:
        `nn.Linear` or 1x1 `nn.Conv2d` layers, one for most models, several for distilled and multi-head ones; empty for
        a timm model with `num_classes=0`.

    Raises:
        ValueError: if the model has no classifier to find.
        TypeError: if it is neither from timm nor from transformers.
    """
    if is_timm(model):
        return _timm_classifiers(model)
    if is_transformers(model):
        inner, prefix = owner_of_classifier(model)
        if unwrap_cosified(model) is not model:
            inner, prefix = unwrap_cosified(model), "model."
        if inner is model:
            return _transformers_classifiers(model)
        return {prefix + name: leaf for name, leaf in find_classifiers(inner).items()}
    raise TypeError(
        f"{type(model).__name__} is neither a timm nor a transformers model; in a module of your own write"
        " cosify.CosineLinear(in_features, num_classes) in place of nn.Linear"
    )


def find_heads(model: nn.Module) -> dict[str, CosineHead]:
    """Return the cosine heads of any module, by module name; empty if there are none."""
    return {name: module for name, module in model.named_modules() if isinstance(module, CosineHead)}


def is_timm(model: nn.Module) -> bool:
    """Return True for a model that timm's factory built."""
    return hasattr(model, "pretrained_cfg")


def is_transformers(model: nn.Module) -> bool:
    """Return True for a transformers model; transformers is not imported to find out."""
    return any(base.__name__ == "PreTrainedModel" for base in type(model).__mro__)


def owner_of_classifier(model: nn.Module) -> tuple[nn.Module, str]:
    """Return the module that owns the classifier, and its prefix: inside transformers' TimmWrapper, the timm model."""
    inner = getattr(model, "timm_model", None)
    if isinstance(inner, nn.Module) and is_transformers(model):
        return inner, "timm_model."
    return model, ""


def unwrap_cosified(model: nn.Module) -> nn.Module:
    """Return the native model inside `CosifiedForImageClassification`, any other model as it is."""
    inner = getattr(model, "model", None) if type(model).__name__ == "CosifiedForImageClassification" else None
    return inner if isinstance(inner, nn.Module) else model


def input_shape(model: nn.Module) -> tuple[int, int, int]:
    """Return channels, height and width of a model's images; 224 pixels where it does not say."""
    config: Any = getattr(model, "pretrained_cfg", None)
    if config is not None:
        channels, height, width = config["input_size"]
        return int(channels), int(height), int(width)
    whole: Any = getattr(model, "config", None)
    config = getattr(whole, "vision_config", None) or whole  # models of images and text
    size = getattr(config, "image_size", None) or 224
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(getattr(config, "num_channels", None) or 3), int(height), int(width)


def num_classes_of(model: nn.Module) -> int:
    """Return the model's own count of classes, 0 if it has none."""
    config = getattr(model, "config", None)
    return int(config.num_labels if is_transformers(model) and config is not None else getattr(model, "num_classes", 0))


def names_in(model: nn.Module) -> list[str] | None:
    """Return the label names that the model was opened with, in order, None for none or numbered ones."""
    # A program may have made the keys text, which sorts "10" before "2".
    by_index = {
        str(index): name for index, name in (getattr(getattr(model, "config", None), "id2label", None) or {}).items()
    }
    names = [by_index[str(index)] for index in range(len(by_index)) if str(index) in by_index]
    if not names or names[0] == "LABEL_0":
        names = list(getattr(model, "pretrained_cfg", {}).get("label_names") or ())
    return names if names and len(names) == num_classes_of(model) else None


def forget_names(model: nn.Module) -> None:
    """Drop the label names that the model was opened with: its classifier has other classes now."""
    config = getattr(model, "config", None)
    if is_transformers(model) and config is not None:
        config.id2label = {index: f"LABEL_{index}" for index in range(config.num_labels)}
        config.label2id = {name: index for index, name in config.id2label.items()}
    owner, _ = owner_of_classifier(model)
    cfg = getattr(owner, "pretrained_cfg", None)
    if cfg is not None and is_timm(owner):
        kept = {key: value for key, value in cfg.items() if key not in ("label_names", "label_descriptions")}
        owner.pretrained_cfg = owner.default_cfg = kept  # type: ignore[assignment]


def _timm_classifiers(model: nn.Module) -> dict[str, nn.Module]:
    if not hasattr(model, "get_classifier"):
        raise InputError(
            f"{type(model).__name__} is an encoder without a classifier, expected an image classifier; feed its pooled"
            " features to cosify.CosineLinear(in_features, num_classes)"
        )
    num_classes = num_classes_of(model)
    if num_classes == 0:
        return {}
    found: dict[str, nn.Module] = {}
    for root in _declared_roots(model):
        path = _last_leaf(model, root)
        if path and _outputs(model.get_submodule(path)) == num_classes:
            found[path] = model.get_submodule(path)
    if not found:
        raise InputError(
            f"no linear or 1x1 convolution with {num_classes} outputs found in the classifier of"
            f" {type(model).__name__}, so there is nothing to convert; build it with num_classes > 0"
        )
    return found


def _declared_roots(model: nn.Module) -> list[str]:
    """Return names of the modules that hold one classifier each."""
    names = {id(module): name for name, module in model.named_modules()}
    declared = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    roots = [name for name in ((declared,) if isinstance(declared, str) else declared) if name in names.values()]
    for module in _flatten(model.get_classifier()):  # type: ignore[operator]
        name = names.get(id(module))
        if name and not any(f"{name}.".startswith(f"{root}.") or root.startswith(f"{name}.") for root in roots):
            roots.append(name)  # it neither lies in a declared one nor holds one
    return roots


def _flatten(classifiers: object) -> Iterator[nn.Module]:
    if isinstance(classifiers, (tuple, list, nn.ModuleList)):
        for entry in classifiers:
            yield from _flatten(entry)
    elif isinstance(classifiers, nn.Module):
        yield classifiers


def _last_leaf(model: nn.Module, root: str) -> str | None:
    """Return the path of the last linear layer or 1x1 convolution that is, or lies in, the module `root`."""
    modules = list(model.get_submodule(root).named_modules(prefix=root))
    return next((path for path, leaf in reversed(modules) if _outputs(leaf) is not None), None)


def _outputs(leaf: nn.Module) -> int | None:
    if isinstance(leaf, nn.Linear):
        return leaf.out_features
    if isinstance(leaf, nn.Conv2d) and leaf.kernel_size == (1, 1) and leaf.groups == 1:
        return leaf.out_channels
    return None


def _transformers_classifiers(model: nn.Module) -> dict[str, nn.Module]:
    if "ForImageClassification" not in type(model).__name__:
        raise InputError(
            f"{type(model).__name__} has no image classifier, expected a ...ForImageClassification; load it with"
            " AutoModelForImageClassification, which adds one"
        )
    ends = [(child, path) for name, child in model.named_children() if (path := _last_leaf(model, name)) is not None]
    num_classes = num_classes_of(model)
    classifier = model.get_submodule(ends[-1][1]) if ends else None
    if classifier is None or _outputs(classifier) != num_classes:
        raise InputError(
            f"{type(model).__name__} does not end in a linear layer with {num_classes} outputs, one for each of its"
            f" labels, but in {[path for _, path in ends[-1:]]}; it cannot take a cosine head"
        )
    twins = {path: model.get_submodule(path) for child, path in ends if type(child) is type(ends[-1][0])}
    return {path: leaf for path, leaf in twins.items() if leaf.weight.shape == classifier.weight.shape}
