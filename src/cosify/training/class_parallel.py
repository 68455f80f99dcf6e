"""What a run does with a head whose classes are spread over its processes; it does nothing for other heads.

Files are those of an ordinary run: the main process gathers the rows of all classes, in its main memory, each time it
saves; who loads them takes its own.  So the number of processes may change between saving and resuming.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from cosify.errors import InputError
from cosify.heads import ClassParallelCosineLinear, CosineHead, CosineLinear
from cosify.heads.class_parallel import place_in
from cosify.heads.class_parallel_rows import gather_rows
from cosify.integrations import compat
from cosify.models import find_heads


def class_parallel_heads(model: nn.Module) -> dict[str, ClassParallelCosineLinear]:
    """Return the heads whose classes are spread, by module name: none or one."""
    return {name: head for name, head in find_heads(model).items() if isinstance(head, ClassParallelCosineLinear)}


def spread_classes(model: nn.Module) -> None:
    """Put a class-parallel head, with this process' rows, in the place of a network's cosine head.

    Args:
        model: timm network on the CPU, the same on each process; its frozen parameters stay frozen.

    Raises:
        ValueError: if it has not exactly one linear cosine head, nothing else trains, or there are fewer classes than
            processes.
    """
    heads = find_heads(model)
    if [type(head) for head in heads.values()] != [CosineLinear] or not hasattr(model, "forward_head"):
        found = [type(head).__name__ for head in heads.values()]
        raise InputError(
            f"class_parallel needs one CosineLinear in a timm model, found {found} in {type(model).__name__}; drop it,"
            " or use a model with a single linear classifier"
        )
    ((name, head),) = heads.items()
    if not any(
        parameter.requires_grad for path, parameter in model.named_parameters() if not path.startswith(f"{name}.")
    ):
        raise InputError(
            "class_parallel is on, but nothing trains beside the head, expected a network that does; drop"
            " class_parallel, or change --blocks"
        )
    assert isinstance(head, CosineLinear)
    _put_in_place(model, name, head, ClassParallelCosineLinear(**_settings(head)))


def collect_classes(model: nn.Module) -> None:
    """Put the plain head back, with the rows of all classes, and the network on the CPU; on the main process alone.

    Every process must call this together.  On the others the network stays as it is.
    """
    with all_classes(model):
        for name, head in class_parallel_heads(model).items():
            if place_in(head.process_group)[0] == 0:
                plain = CosineLinear(**_settings(head), eval_kappa=head.eval_kappa)
                _put_in_place(model.cpu(), name, head, plain)


def _settings(head: CosineLinear | ClassParallelCosineLinear) -> dict[str, Any]:
    """Return the arguments of a head of the same classes and kappa, without storage: the rows come from this one."""
    return {
        "in_features": head.in_features,
        "num_classes": head.num_classes,
        "kappa": head.kappa_spec,
        "start_kappa": head.start_kappa,
        "start_norm": head.start_norm,
        "device": "meta",
    }


def _put_in_place(model: nn.Module, name: str, old: CosineHead, new: CosineHead) -> None:
    new.load_state_dict(old.state_dict(), assign=True)
    for path, parameter in new.named_parameters():
        parameter.requires_grad_(old.get_parameter(path).requires_grad)
    model.set_submodule(name, new.train(old.training))


@contextmanager
def all_classes(*models: nn.Module, optimizer: Any = None) -> Iterator[None]:
    """Let the main process hold the rows of all classes within the block: what it saves is an ordinary run's.

    Every process must enter together.  The rows lie in main memory, and are for saving alone.

    Args:
        models: networks whose heads it concerns.
        optimizer: whose rows of these heads it concerns, too.

    Raises:
        ValueError: on all processes, if the main one has no room for them.
    """
    places: list[tuple[ClassParallelCosineLinear, Tensor, Callable[[Tensor], None]]] = []
    for head in chain.from_iterable(class_parallel_heads(model).values() for model in models):
        places.append((head, head.weight, partial(setattr, head, "weight")))
        state = {} if optimizer is None else optimizer.state.get(head.weight, {})
        rows = {key: value for key, value in state.items() if _is_rows(value, len(head.classes), head)}
        places += [(head, value, partial(state.__setitem__, key)) for key, value in rows.items()]
    # All is gathered before the first is replaced, and before a file is begun, whose errors one process has alone.
    gathered = [gather_rows(head, value) for head, value, _ in places]
    try:
        for (_, own, put), whole in zip(places, gathered, strict=True):
            put(nn.Parameter(whole, requires_grad=False) if isinstance(own, nn.Parameter) else whole)
        yield
    finally:
        for _, own, put in places:
            put(own)


def keep_out_of_ddp(objective: nn.Module) -> None:
    """Tell DDP that the heads' parameters are each process' own: their gradients are complete there."""
    own = {id(parameter) for head in class_parallel_heads(objective).values() for parameter in head.parameters()}
    names = [name for name, parameter in objective.named_parameters() if id(parameter) in own]
    if names:
        setattr(objective, compat.IGNORED_BY_DDP, names)


def load_own_rows(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Let an optimiser take this process' rows when it loads a state of all classes."""
    heads = {id(head.weight): head for head in class_parallel_heads(model).values()}
    if not heads:
        return

    def take(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state = dict(saved["state"])
        for index, parameter in enumerate(parameters):  # a saved state knows parameters by their place
            head = heads.get(id(parameter))
            if head is not None and index in state:
                own = slice(head.classes.start, head.classes.stop)
                state[index] = {
                    key: value[own].clone() if _is_rows(value, head.num_classes, head) else value
                    for key, value in state[index].items()
                }
        return {**saved, "state": state}

    optimizer.register_load_state_dict_pre_hook(take)


def _is_rows(value: Any, num_rows: int, head: ClassParallelCosineLinear) -> bool:
    return isinstance(value, Tensor) and value.shape == (num_rows, head.in_features)


def clip_gradients(model: nn.Module, max_norm: float, all_sum: Callable[[Tensor], Tensor]) -> None:
    """Clip the gradient of the network and of all classes to a norm, that of one process with all rows.

    Args:
        model: network with a class-parallel head.
        max_norm: above 0.
        all_sum: returns the sum of a tensor over all processes.
    """
    rows = [head.weight for head in class_parallel_heads(model).values()]
    own = {id(parameter) for parameter in rows}
    shared = [each.grad for each in model.parameters() if each.grad is not None and id(each) not in own]
    of_rows = get_total_norm([each.grad for each in rows if each.grad is not None])
    norm = (get_total_norm(shared).square() + all_sum(of_rows.square())).sqrt()
    clip_grads_with_norm_(model.parameters(), max_norm, norm)
