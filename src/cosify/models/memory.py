"""Keep a cosine head where timm would quietly lose it: `reset_classifier` and `fuse` of a converted model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from torch import nn

from cosify.functional.checks import check_num_classes
from cosify.heads import CosineHead, HeadSpec
from cosify.heads.policies import resolve_policy
from cosify.models.classifiers import forget_names
from cosify.models.replacement import replace_classifiers
from cosify.wrapping import wrap_once

# The models that were given cosine heads, as long as they live.
converted: WeakSet[nn.Module] = WeakSet()


@dataclass(frozen=True)
class Memory:
    """What a converted model remembers: its head settings, and the classes whose methods were wrapped to respect them.

    The methods are wrapped on the class, once, and look at the instance: copies, pickles and EMA models keep working,
    and unconverted models of the class behave as before.  Unpickled in a new process, the memory wraps them again.
    """

    spec: HeadSpec
    model_class: type[nn.Module]
    fusible_classes: tuple[type[nn.Module], ...]

    def __post_init__(self) -> None:
        if hasattr(self.model_class, "reset_classifier"):
            wrap_once(self.model_class, "reset_classifier", _reset_and_convert)
        for container in self.fusible_classes:
            wrap_once(container, "fuse", _fuse_unless_cosine)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.spec, self.model_class, self.fusible_classes)

    @staticmethod
    def attach(owner: nn.Module, spec: HeadSpec, heads: Mapping[str, CosineHead]) -> None:
        """Give `owner` its memory; `heads` are named relative to it."""
        containers: dict[type[nn.Module], None] = {}
        for name in heads:
            parts = name.split(".")[:-1]
            ancestors = [owner.get_submodule(".".join(parts[: i + 1])) for i in range(len(parts))]
            containers.update({type(module): None for module in ancestors if hasattr(module, "fuse")})
        converted.add(owner)
        owner.cosify_memory = Memory(spec, type(owner), tuple(containers))  # type: ignore[assignment]


def _reset_and_convert(original: Callable[..., Any], model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    memory = getattr(model, "cosify_memory", None)
    num_classes = args[0] if args else kwargs.get("num_classes")
    if isinstance(memory, Memory) and num_classes:  # first: the model keeps its head
        check_num_classes(num_classes, resolve_policy(memory.spec.kappa).min_classes)
    result = original(model, *args, **kwargs)
    if isinstance(memory, Memory):
        forget_names(model)
        Memory.attach(model, memory.spec, replace_classifiers(model, memory.spec))
    return result


def _fuse_unless_cosine(original: Callable[..., Any], module: nn.Module) -> Any:
    """Folding batch norm into the classifier needs a bias, and gives a plain linear layer without kappa."""
    if any(isinstance(child, CosineHead) for child in module.modules()):
        return module
    return original(module)
