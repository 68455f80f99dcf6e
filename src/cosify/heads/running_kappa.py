"""The kappa that a head keeps: its running mean, its start, and how both are saved, loaded and moved."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.functional.checks import check_kappa, check_num_classes
from cosify.heads.policies import mean_of_counted, plain, resolve_policy

EvalKappa = Literal["running", "sample"] | float


class RunningKappa(nn.Module):
    """Kappa of a head and the mean ||x|| of its embeddings, as training has seen them.

    Attributes:
        kappa: buffer, scalar: the mean of the training batches' kappa, used in evaluation.
        embedding_norm: buffer, scalar: the mean of ||x|| in training, or what `cosify.calibrate` fitted instead; used
            to export to a stock linear layer.
        log_kappa: parameter of shape [1] under the policy `"trainable"`, else None.
        last_kappa: kappa of the last training batch, [rows], detached; None before the first.  A row is a sample, a
            position of a map or a token, also one that `CosineSoftmaxLoss` leaves out; of a class-parallel head the
            samples of all processes, this one's being `last_kappa[own_rows]`.
    """

    weight: Tensor
    kappa: Tensor
    embedding_norm: Tensor
    log_kappa: nn.Parameter | None
    last_kappa: Tensor | None

    eval_kappa: EvalKappa

    statistics: ClassVar[tuple[str, ...]] = ("kappa", "embedding_norm")

    def _setup_kappa(
        self,
        num_classes: int,
        in_features: int,
        kappa: float | str,
        eval_kappa: EvalKappa,
        start_kappa: float | None,
        start_norm: float | None,
    ) -> None:
        kappa = plain(kappa)
        self.policy = resolve_policy(kappa)
        check_num_classes(num_classes, self.policy.min_classes)
        self.kappa_spec: float | str = kappa
        self.eval_kappa = eval_kappa
        if start_kappa is not None:
            check_kappa(start_kappa, 1)
        if start_norm is not None and not 0 < start_norm < math.inf:
            raise InputError(f"start_norm is {start_norm}, expected a finite number above 0, the mean norm of features")
        self.start_kappa = self.policy.start(num_classes) if start_kappa is None else start_kappa
        # Features behind a layer norm have about this norm; the first training batch replaces it.
        self.start_norm = in_features**0.5 if start_norm is None else start_norm
        self.last_kappa = None
        place: dict[str, Any] = {"device": self.weight.device, "dtype": torch.float32}
        for name in self.statistics:
            self.register_buffer(name, torch.empty((), **place))
        # Shape [1]: FSDP2 cannot shard a scalar, and timm keeps vectors out of weight decay.
        self.register_parameter("log_kappa", nn.Parameter(torch.empty(1, **place)) if self.policy.trainable else None)
        self.init_non_persistent_buffers()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the kappa of evaluation, which users set at any time, is checked."""
        if name == "eval_kappa":
            value = plain(value)
            check_eval_kappa(value)
        super().__setattr__(name, value)

    def reset_parameters(self) -> None:
        """Draw the weight as the stock layer does and start kappa anew; after `to_empty` this fills everything."""
        super().reset_parameters()  # type: ignore[misc]  # of nn.Linear or nn.Conv2d
        if "kappa" in self._buffers:  # their constructors call this before there is a kappa
            self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Set kappa and its companions to their start values.

        transformers calls this, under a guard that spares loaded tensors, after it has built a model without storage;
        hence `nn.init` and this name.
        """
        nn.init.constant_(self.kappa, self.start_kappa)
        nn.init.constant_(self.embedding_norm, self.start_norm)
        if self.log_kappa is not None:
            nn.init.constant_(self.log_kappa, math.log(self.start_kappa))

    @torch.no_grad()
    def start_kappa_anew(self) -> None:
        """Set kappa alone to its start value, for other classes than those that it was found for."""
        self.kappa.fill_(self.start_kappa)
        if self.log_kappa is not None:
            self.log_kappa.fill_(math.log(self.start_kappa))

    def inference_kappa(self) -> float:
        """Return the one kappa of evaluation; under `eval_kappa="sample"` the running one."""
        return self.running_kappa() if isinstance(self.eval_kappa, str) else float(self.eval_kappa)

    def running_kappa(self) -> float:
        """Return the running kappa, or the trainable one, whatever evaluation uses."""
        with torch.no_grad():
            return float(self.single_kappa(training=True))

    def single_kappa(self, training: bool) -> Tensor:
        """Return the kappa that samples share where none is estimated, a scalar or [1]; it may carry a gradient."""
        if not training and not isinstance(self.eval_kappa, str):
            return torch.full_like(self.kappa, self.eval_kappa, dtype=torch.float32)
        return self.kappa.float() if self.log_kappa is None else self.log_kappa.float().exp()

    @torch.no_grad()
    def record(self, embedding: Tensor, kappa: Tensor, counted: Tensor | None = None) -> None:
        """Update the running means; a batch without samples that count, or with an overflow, leaves them alone.

        One of zeros, or too short for float32's squares, leaves the mean ||x|| alone, by which exports divide.

        A mean that has its start value has seen no batch yet: the first one sets it.

        Args:
            embedding: [B, d].
            kappa: [B], or [1] for all.
            counted: [B] bool, the samples that count in the means; default: all.
        """
        norm = torch.linalg.vector_norm(embedding.float(), dim=1)
        moving = [(self.embedding_norm, norm, self.start_norm, 0.01)]
        if not self.policy.constant:
            moving.append((self.kappa, kappa.float(), self.start_kappa, self.policy.momentum))
        for running, values, start, momentum in moving:
            mean = mean_of_counted(values, counted)
            share = torch.where(running == start, 1.0, momentum).to(running.dtype)
            running.lerp_(torch.where((mean > 0) & (mean < torch.inf), mean, running), share)
        self.last_kappa = kappa.expand(embedding.shape[0]).contiguous()

    def check_statistics(self) -> None:
        """Raise unless kappa and its companions are finite and above 0, for a reader that fills them by itself."""
        _check_statistics(self.state_dict(), "")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Accept checkpoints of the stock layer (a bias is dropped) and of another policy; check kappa.

        `load_state_dict` hands in a copy of the user's dictionary, so keys may be changed here.
        """
        _check_statistics(state_dict, prefix)
        state_dict.pop(prefix + "bias", None)
        weight = state_dict.get(prefix + "weight")
        device = self.weight.device
        if device.type == "meta" and weight is not None:
            device = weight.device  # of a load with assign=True
        if weight is not None and weight.shape[0] != self.weight.shape[0]:
            raise InputError(
                f"{prefix}weight holds {weight.shape[0]} classes, this head has {self.weight.shape[0]}; build the model"
                f" with num_classes={weight.shape[0]}, or drop {prefix}weight from the state dict to train a new head"
            )
        if weight is None:  # dropped for a new head of other classes, for which this kappa is not
            for name in ("kappa", "log_kappa"):
                state_dict.pop(prefix + name, None)
        if self.policy.constant:
            state_dict.pop(prefix + "kappa", None)
        # Not this module's own tensors: after `to_empty` they hold anything.
        for name, start in (("kappa", self.start_kappa), ("embedding_norm", self.start_norm)):
            state_dict.setdefault(prefix + name, torch.full((), start, device=device))
        if self.log_kappa is None:
            state_dict.pop(prefix + "log_kappa", None)
        else:
            state_dict.setdefault(prefix + "log_kappa", state_dict[prefix + "kappa"].float().log().reshape(1))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RunningKappa":
        """Move the running means with the model but keep them float32: bfloat16 would round their updates away.

        `to_empty` gives memory that holds anything, and the function that then fills the weights, such as timm's
        `init_weights`, does not know of kappa; so kappa starts anew here.
        """
        before = {name: getattr(self, name) for name in self.statistics}
        super()._apply(fn, recurse)
        if before["kappa"].is_meta and not self.kappa.is_meta:
            self.init_non_persistent_buffers()
        for name, old in before.items():
            new = getattr(self, name)
            if new.dtype != old.dtype:
                setattr(self, name, old.to(new.device))
        return self


def check_eval_kappa(eval_kappa: object) -> None:
    """Raise unless it is "running", "sample" or a finite number above 0."""
    if isinstance(eval_kappa, bool) or not isinstance(eval_kappa, (int, float, str)):
        raise TypeError(f"eval_kappa is {eval_kappa!r}, expected 'running', 'sample' or a number above 0")
    if eval_kappa not in ("running", "sample") and (isinstance(eval_kappa, str) or not 0 < eval_kappa < math.inf):
        raise InputError(f"eval_kappa is {eval_kappa!r}, expected 'running', 'sample' or a finite number above 0")


def check_saved(name: str, value: object) -> None:
    """Raise unless a number that is saved beside a head's weight is finite and above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InputError(
            f"{name} of a saved head is {value!r}, expected a finite number above 0; the file is damaged, save"
            " the model again"
        )


def _check_statistics(state: Mapping[str, Tensor], prefix: str) -> None:
    for name in (*RunningKappa.statistics, "log_kappa"):
        value = state.get(prefix + name)
        if value is None or value.is_meta:
            continue
        if hasattr(value, "to_local"):  # a DTensor of FSDP: the part of this rank, which may be empty
            value = value.to_local()
        if value.numel() > 0:
            number = value.float().exp() if name == "log_kappa" else value
            check_saved(prefix + name, number.item() if number.numel() == 1 else number.tolist())
