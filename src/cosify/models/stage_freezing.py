"""Choose how much of a pretrained model trains: all of it, its last stages, or the classifier alone."""

from typing import Any, Literal

from timm.models import group_parameters
from torch import nn

from cosify.errors import InputError
from cosify.models.classifiers import find_classifiers

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
Trainable = Literal["all", "head"] | int


def stages(model: nn.Module) -> list[list[str]]:
    """Return the names of the parameters of each stage, from input to output.

    Stages are timm's coarse groups: `layer1` to `layer4` of a ResNet, the seven `blocks` of an EfficientNet, each block
    of a ViT.  The stem belongs to the first stage; what timm groups with the classifier, such as a final norm, to the
    last one.  The classifier, all layers that `find_classifiers` finds, belongs to no stage.

    Args:
        model: a timm model, converted or not, not wrapped by DDP.

    Raises:
        ValueError: if the model does not say what its stages are, or has no classifier.
    """
    try:
        matcher: Any = model.group_matcher(coarse=True)  # type: ignore[operator]
    except (AssertionError, AttributeError) as error:  # timm 1.0.31: RDNet; MetaFormer, PiT, CSATv2
        raise InputError(
            f"{type(model).__name__} does not say what its stages are (timm's coarse group_matcher), expected a timm"
            " model that does; choose 'all' or 'head' instead of a number of stages"
        ) from error
    head = _head_parameters(model)
    groups: list[list[str]] = list(group_parameters(model, matcher).values())
    # In every model of timm 1.0.31 the first group is the stem, and the last one holds the classifier.
    stem, *between, last = groups
    beside_head = [name for name in last if name not in head]
    if not between:
        return [stem + beside_head]
    between[0] = stem + between[0]
    between[-1] = between[-1] + beside_head
    return between


def freeze_stages(model: nn.Module, trainable: Trainable) -> None:
    """Let part of a model train and freeze the rest; a call replaces the choice of earlier ones.

    Kobayashi, Table 5.  Call it before the optimiser and DDP are made, and `keep_frozen_in_eval` after every
    `model.train()`.

    Args:
        model: as in `stages`; for `"all"` and `"head"` any model that `find_classifiers` takes.
        trainable: `"all"`, the `"head"` (the classifier layers alone), or the number of last stages that train beside
            the head: 1 trains `layer4` and `fc` of a ResNet, 4 all of it.

    Raises:
        ValueError: if the model has fewer stages, or no classifier.
    """
    if trainable == "all":
        frozen = set()
    elif trainable == "head":
        frozen = {name for name, _ in model.named_parameters()} - _head_parameters(model)
    else:
        groups = stages(model)
        if not isinstance(trainable, int) or not 1 <= trainable <= len(groups):
            raise InputError(
                f"{trainable!r} stages came, expected 'all', 'head' or 1 to {len(groups)}: {type(model).__name__} has"
                f" {len(groups)} stages, which begin with {[names[0] for names in groups]}"
            )
        frozen = {name for names in groups[: len(groups) - trainable] for name in names}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)


def keep_frozen_in_eval(model: nn.Module, *, batch_norms: bool = False) -> None:
    """Put each module whose parameters are all frozen into evaluation mode; call it after every `model.train()`.

    Frozen batch norms then use, and keep, their running statistics, and dropout and stochastic depth within frozen
    modules are off: a frozen stage computes what it computes in evaluation.  Modules without parameters that stand
    beside trained ones stay as they are, so dropout before the head is on.

    Nothing is stored but `requires_grad`, so it works on copies, EMA models and inside DDP alike.  timm's
    `freeze_batch_norm_2d` is not used: it swaps the layers for others, which changes the keys of the state dict, and
    leaves 1-d batch norms alone.

    Args:
        model: whose training mode was set.
        batch_norms: put all batch norms there too, also those whose scale and shift train.
    """
    for module in model.modules():
        parameters = list(module.parameters())
        frozen = parameters and not any(parameter.requires_grad for parameter in parameters)
        if frozen or (batch_norms and isinstance(module, BATCH_NORMS)):
            module.eval()


def _head_parameters(model: nn.Module) -> set[str]:
    """Return the names of the parameters of all classifier layers, among them a trainable kappa."""
    classifiers = find_classifiers(model)
    if not classifiers:
        raise InputError(
            f"{type(model).__name__} has no classifier (num_classes=0), expected one to train; give it one with"
            " cosify.convert(model, num_classes=...)"
        )
    return {f"{path}.{name}" for path, layer in classifiers.items() for name, _ in layer.named_parameters()}
