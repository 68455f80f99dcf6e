"""Stop adapters and quantisers that mistake a cosine head for the linear layer from which it inherits.

PEFT's `all-linear` adds its product to the logits, past kappa and the norms, and merging adds it to the weight, which
is another function; optimum-quanto puts a plain linear layer in the head's place.  Both choose layers by `isinstance`.
But both have to register a module, and torch has a hook for that.
"""

from functools import cache

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from cosify.errors import InputError
from cosify.heads.running_kappa import RunningKappa


@cache
def watch_registrations() -> None:
    """Watch every registration of a submodule, from the first cosine head on."""
    register_module_module_registration_hook(_refuse)


def _refuse(parent: nn.Module, name: str, module: nn.Module | None) -> None:
    if name == "base_layer" and isinstance(module, RunningKappa):  # so named in every adapter of PEFT
        raise InputError(
            f"{type(parent).__name__} cannot wrap a {type(module).__name__}, expected a linear layer: its change would"
            " bypass kappa, and merging it would change the labels; exclude the classifier (PEFT:"
            " exclude_modules=[NAME]) and train it whole (modules_to_save=[NAME])"
        )
    replaced = parent._modules.get(name)
    if (
        isinstance(replaced, RunningKappa)
        and isinstance(module, (nn.Linear, nn.Conv2d))
        and not isinstance(module, RunningKappa)
        and type(module) not in (nn.Linear, nn.Conv2d)  # plain ones are someone's wish for a softmax
        and module.weight is replaced.weight
    ):
        raise InputError(
            f"{type(module).__name__} cannot replace the {type(replaced).__name__} {name!r}, expected a layer that"
            f" keeps norms and kappa; exclude the classifier (optimum-quanto: exclude={name!r})"
        )
