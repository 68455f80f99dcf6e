"""Classifier layers that return kappa times the cosine, with a kappa that a policy finds."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.fx import Proxy

from cosify.errors import InputError
from cosify.functional.checks import (
    check_finite,
    check_kappa,
    check_num_classes,
    check_shapes,
    in_backward,
    values_hidden,
)
from cosify.functional.class_scan import ClassScan
from cosify.functional.scaled_cosine import cosines
from cosify.functional.similarity import full_precision, is_ordinary, unit_rows
from cosify.heads.class_norms import ClassNorms
from cosify.heads.policies import Estimate, Geometry, mean_of_counted, resolve_policy
from cosify.heads.unwrappable import watch_registrations

EvalKappa = Literal["running", "sample"]


class CosineHead(nn.Module):
    """What `CosineLinear` and `CosineConv1x1` share: kappa, its running mean, loading of stock checkpoints.

    Attributes:
        kappa: buffer, scalar: the mean of the training batches' kappa, used in evaluation.
        embedding_norm: buffer, scalar: the mean of ||x|| in training, used to export to a stock linear layer.
        log_kappa: parameter of shape [1] under the policy `"trainable"`, else None.
        last_kappa: kappa of the last training batch, [B], detached; None before the first.  One for each row, also of
            the samples that `CosineSoftmaxLoss` leaves out.
    """

    weight: Tensor
    kappa: Tensor
    embedding_norm: Tensor
    batch_seen: Tensor
    log_kappa: nn.Parameter | None
    last_kappa: Tensor | None

    statistics: ClassVar[tuple[str, ...]] = ("kappa", "embedding_norm")
    process_group: ProcessGroup | None = None  # over which the classes are sharded

    def _setup_kappa(
        self,
        num_classes: int,
        in_features: int,
        kappa: float | str,
        eval_kappa: EvalKappa,
        start_kappa: float | None,
        start_norm: float | None,
    ) -> None:
        watch_registrations()
        self.policy = resolve_policy(kappa)
        check_num_classes(num_classes, self.policy.min_classes)
        if eval_kappa not in get_args(EvalKappa):
            raise InputError(f"eval_kappa is {eval_kappa!r}, expected one of {get_args(EvalKappa)}")
        self.num_classes = num_classes
        self.kappa_spec: float | str = kappa
        self.eval_kappa = eval_kappa
        if start_kappa is not None:
            check_kappa(start_kappa, 1)
        self.start_kappa = self.policy.start(num_classes) if start_kappa is None else start_kappa
        # Features behind a layer norm have about this norm; the first training batch replaces it.
        self.start_norm = in_features**0.5 if start_norm is None else start_norm
        self.last_kappa = None
        self._class_norms = ClassNorms()
        place: dict[str, Any] = {"device": self.weight.device, "dtype": torch.float32}
        for name in self.statistics:
            self.register_buffer(name, torch.empty((), **place))
        self.register_buffer("batch_seen", torch.empty((), **place), persistent=False)
        # Shape [1]: FSDP2 cannot shard a scalar, and timm keeps vectors out of weight decay.
        self.register_parameter("log_kappa", nn.Parameter(torch.empty(1, **place)) if self.policy.trainable else None)
        self.init_non_persistent_buffers()

    def reset_parameters(self) -> None:
        """Draw the weight as the stock layer does and start kappa anew; after `to_empty`, all that there is."""
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
        nn.init.constant_(self.batch_seen, 0.0)
        if self.log_kappa is not None:
            nn.init.constant_(self.log_kappa, math.log(self.start_kappa))

    def cosine_logits(self, embedding: Tensor, weight: Tensor) -> Tensor:
        """Return kappa * cosine [B, C], float32, for `embedding` [B, d] and `weight` [C, d].

        Kobayashi, Eqs. (1) and (2).  An estimated kappa is a constant of the backward pass.  In a transform of
        `torch.func`, which is pure, nothing is recorded: per-sample gradients leave the running means alone.  Nor is it
        where `torch.utils.checkpoint` repeats a pass.
        """
        weight = dense(weight)
        if self._is_plain_evaluation(embedding):
            return self._evaluated(embedding, weight)
        self._class_norms.forget()
        estimates = self.policy.estimates and (self.training or self.eval_kappa == "sample")
        with full_precision(embedding.device):
            cosine = cosines(embedding, weight, estimates)
            kappa = self.batch_kappa(cosine.scan() if estimates else None, self.num_classes).kappa
            if self.training and (torch.compiler.is_compiling() or not (values_hidden() or in_backward())):
                self.record(embedding.detach(), kappa.detach())
            return cosine.times(kappa)

    def _is_plain_evaluation(self, embedding: Tensor) -> bool:
        """Whether kappa is the running one, and nobody wants a gradient, a graph or a trace."""
        plain = not self.training and self.eval_kappa == "running" and not torch.is_grad_enabled()
        eager = not values_hidden() and not torch.jit.is_tracing() and not embedding.is_meta  # type: ignore[attr-defined]
        return plain and eager and type(self.weight) is nn.Parameter and not self.weight.is_inference()

    def _evaluated(self, embedding: Tensor, weight: Tensor) -> Tensor:
        """Return the logits at the price of a linear layer: its product, the norms of the embeddings, two scalings."""
        check_shapes(embedding, weight)
        with full_precision(embedding.device):
            dtype = torch.promote_types(torch.promote_types(embedding.dtype, weight.dtype), torch.float32)
            inverse_norm = self._class_norms.inverse(self.weight, dtype)
            kappa = self.kappa.float() if self.log_kappa is None else self.log_kappa.float().exp()
            rows = embedding.to(dtype)
            length = torch.linalg.vector_norm(rows, dim=1)
            if is_ordinary(length):
                rows = rows * (kappa / length).unsqueeze(1)
            else:
                check_finite(embedding, "embedding")
                rows = unit_rows(rows) * kappa
            return F.linear(rows, weight.to(dtype)).mul_(inverse_norm)

    def as_node(self, input: Any) -> Tensor:
        """Return the whole layer as one node of a graph that `torch.fx` draws of the model around it."""
        tracer = input.tracer
        if tracer.root is self:
            raise InputError(
                f"torch.fx came to trace a {type(self).__name__} alone, whose kappa follows from values that a symbol"
                " does not have; trace the model that holds it, where it becomes one node, or use torch.export"
            )
        node: Tensor = tracer.create_proxy("call_module", tracer.path_of_module(self), (input,), {})
        return node

    def __prepare_scriptable__(self) -> "CosineHead":
        """Refuse `torch.jit.script`, which asks each module of a model before it compiles any."""
        raise InputError(
            f"torch.jit.script came to a {type(self).__name__}, whose kappa policy it cannot compile; use"
            " torch.jit.trace(model.eval(), example) or torch.export.export(model.eval(), (example,))"
        )

    def gathered(self, embedding: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the samples that this head's classes are compared with: here the process' own."""
        return embedding, labels, weights

    def classes_of(self, labels: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return the weight [c, d] of the classes held here, each sample's label among them, -1 for none, and C."""
        return self.weight.flatten(1), labels, self.num_classes

    def inference_kappa(self) -> float:
        """Return the kappa that evaluation uses, under `eval_kappa="running"`."""
        return float(self.kappa if self.log_kappa is None else self.log_kappa.detach().exp())

    @torch.no_grad()
    def stock_weight(self) -> Tensor:
        """Return a weight with which the stock layer, given a zero bias, predicts the same labels.

        Rows of one norm rank the classes by their cosine.  The norm kappa / E||x|| brings the logits close to this
        head's, as far as ||x|| varies little.
        """
        rows = unit_rows(dense(self.weight).flatten(1)) * (self.inference_kappa() / float(self.embedding_norm))
        return rows.reshape(self.weight.shape)

    def batch_kappa(self, scan: ClassScan | None, num_classes: int, counted: Tensor | None = None) -> Estimate:
        """Return kappa of the batch that is scanned; its gradient leads to `log_kappa`, if to anything.

        Args:
            scan: embeddings and classes; None where the policy reads none.
            num_classes: C, over all processes.
            counted: [B] bool, the samples that a statistic of the whole batch is of; default: all.
        """
        if self.log_kappa is not None:
            return Estimate(self.log_kappa.float().exp())
        running = self.kappa.float()
        if scan is not None and self.policy.estimates and (self.training or self.eval_kappa == "sample"):
            last = self.last_kappa
            if last is None or len(last) == 0 or values_hidden():  # a graph takes the route that needs no start
                last = running.reshape(1)
            estimate = self.policy.estimate(Geometry(scan, num_classes, running, last, counted))
            return Estimate(estimate.kappa.reshape(-1), estimate.softmax)
        return Estimate(running.reshape(1).clone())  # a copy: the buffer itself moves on within this step

    @torch.no_grad()
    def record(self, embedding: Tensor, kappa: Tensor, counted: Tensor | None = None) -> None:
        """Update the running means; a batch without samples that count, or with an overflow, leaves them alone.

        Args:
            embedding: [B, d].
            kappa: [B], or [1] for all.
            counted: [B] bool, the samples that the means are of; default: all.
        """
        seen = self.batch_seen > 0
        norm = torch.linalg.vector_norm(embedding.float(), dim=1)
        moving = [(self.embedding_norm, mean_of_counted(norm, counted), 0.01)]
        if not self.policy.constant:
            moving.append((self.kappa, mean_of_counted(kappa.float(), counted), self.policy.momentum))
        for running, mean, momentum in moving:
            new = torch.where(seen, torch.lerp(running, mean, momentum), mean)
            running.copy_(torch.where(new < torch.inf, new, running))
        self.batch_seen.logical_or_(moving[0][1] < torch.inf)
        self.last_kappa = kappa.expand(embedding.shape[0]).contiguous()

    def check_statistics(self) -> None:
        """Raise unless kappa and its companions are finite and above 0, for a reader that fills them by itself."""
        _check_statistics(self.state_dict(), "")

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Come back from a pickle as guarded as a new head."""
        watch_registrations()
        super().__setstate__({"_class_norms": ClassNorms(), **state})  # of earlier versions

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
        saved_kappa = state_dict.get(prefix + "kappa")
        if saved_kappa is not None and device.type != "meta":
            norm = state_dict.get(prefix + "embedding_norm", self.start_norm)  # kappa may be constant
            trained = float(saved_kappa) != float(torch.tensor(self.start_kappa)) or float(norm) != float(
                torch.tensor(self.start_norm)
            )
            self.batch_seen = torch.full((), float(trained), device=device)
        # Not this module's own tensors: after `to_empty` they hold anything.
        start = {"kappa": self.start_kappa, "embedding_norm": self.start_norm}
        if self.policy.constant:
            state_dict.pop(prefix + "kappa", None)
        if self.log_kappa is None:
            state_dict.pop(prefix + "log_kappa", None)
        elif prefix + "log_kappa" not in state_dict:
            known = torch.full((), self.start_kappa, device=device) if saved_kappa is None else saved_kappa.float()
            state_dict[prefix + "log_kappa"] = known.log().reshape(1)
        for name in self.statistics:
            state_dict.setdefault(prefix + name, torch.full((), start[name], device=device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> "CosineHead":
        """Set the mode; what was kept of the weight is computed anew."""
        self._class_norms.forget()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CosineHead":
        """Move the running means with the model but keep them float32: bfloat16 would round their updates away.

        `to_empty` gives memory that holds anything, and what fills the weights then, such as timm's `init_weights`,
        does not know of kappa; so it starts anew.
        """
        self._class_norms.forget()
        before = {name: getattr(self, name) for name in (*self.statistics, "batch_seen")}
        super()._apply(fn, recurse)
        if before["kappa"].is_meta and not self.kappa.is_meta:
            self.init_non_persistent_buffers()
        for name, old in before.items():
            new = getattr(self, name)
            if new.dtype != old.dtype:
                setattr(self, name, old.to(new.device))
        return self

    def extra_repr(self) -> str:
        """Show the layer's own arguments and the kappa policy."""
        return f"{super().extra_repr()}, kappa={self.kappa_spec!r}, eval_kappa={self.eval_kappa!r}"


def is_symbol(input: object) -> bool:
    """True for what `torch.fx` sends through a model to draw its graph."""
    return isinstance(input, Proxy)


def dense(weight: Tensor) -> Tensor:
    """Return the numbers of a weight that a quantiser such as torchao has put in its own kind of tensor."""
    if type(weight) in (Tensor, nn.Parameter) or type(weight).dequantize is Tensor.dequantize:
        return weight
    return weight.dequantize()


def check_saved(name: str, value: object) -> None:
    """Raise unless what a saved head knows beside its weight is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InputError(
            f"{name} of a saved head is {value!r}, expected a finite number above 0; the file is damaged, save"
            " the model again"
        )


def _check_statistics(state: Mapping[str, Tensor], prefix: str) -> None:
    for name in (*CosineHead.statistics, "log_kappa"):
        value = state.get(prefix + name)
        if value is None or value.is_meta:
            continue
        if hasattr(value, "to_local"):  # a DTensor of FSDP: the part of this rank, which may be empty
            value = value.to_local()
        if value.numel() > 0:
            number = value.float().exp() if name == "log_kappa" else value
            check_saved(prefix + name, number.item() if number.numel() == 1 else number.tolist())


class CosineLinear(CosineHead, nn.Linear):
    """Classifier that returns kappa * cos(x, w_c), in place of `nn.Linear`.

    Kobayashi, Eqs. (1) and (2); kappa by policy: LS (10)-(11), ML (5)-(6), rule of thumb (4), trainable, AdaCos or
    fixed.  It is an `nn.Linear` without bias, so initialisers, optimisers and `isinstance` tests treat it as one; the
    parameter `weight` keeps its name.

    Args:
        in_features: d.
        num_classes: C, at least 2.
        kappa: a number above 0, or one of `"ls"`, `"ml"`, `"rule"`, `"trainable"`, `"adacos"`, `"adacos-dynamic"`.
        eval_kappa: in evaluation use the `"running"` mean of training, or estimate for each `"sample"`; the predicted
            label is the same.
        start_kappa: kappa before the first training batch, of a loaded head for instance; default: the policy's.
        start_norm: mean ||x|| before the first training batch; default: sqrt(d).
        device: where the parameters lie.
        dtype: of `weight`; kappa is float32.

    Raises:
        ValueError: for an unknown policy, kappa <= 0 or NaN, or fewer than two classes (three for AdaCos).
        TypeError: if `kappa` is neither a number nor a string.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        kappa: float | str = "ls",
        eval_kappa: EvalKappa = "running",
        start_kappa: float | None = None,
        start_norm: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Linear.__init__(self, in_features, num_classes, bias=False, device=device, dtype=dtype)
        self._setup_kappa(num_classes, in_features, kappa, eval_kappa, start_kappa, start_norm)

    def forward(self, input: Tensor) -> Tensor:
        """Map embeddings [..., d] to logits [..., C], float32."""
        if is_symbol(input):
            return self.as_node(input)
        if input.ndim == 2:  # no view, which FSDP2 would warn of
            return self.cosine_logits(input, self.weight)
        logits = self.cosine_logits(input.reshape(-1, input.shape[-1]), self.weight)
        return logits.reshape(*input.shape[:-1], self.num_classes)


class CosineConv1x1(CosineHead, nn.Conv2d):
    """`CosineLinear` at every position of a feature map, in place of a 1x1 `nn.Conv2d` classifier.

    Arguments and errors as in `CosineLinear`; `weight` is [C, d, 1, 1].
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        kappa: float | str = "ls",
        eval_kappa: EvalKappa = "running",
        start_kappa: float | None = None,
        start_norm: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Conv2d.__init__(self, in_features, num_classes, kernel_size=1, bias=False, device=device, dtype=dtype)
        self._setup_kappa(num_classes, in_features, kappa, eval_kappa, start_kappa, start_norm)

    def forward(self, input: Tensor) -> Tensor:
        """Map a feature map [B, d, H, W] to logits [B, C, H, W], float32."""
        if is_symbol(input):
            return self.as_node(input)
        rows = input.movedim(1, -1)
        logits = self.cosine_logits(rows.reshape(-1, rows.shape[-1]), self.weight.flatten(1))
        return logits.reshape(*rows.shape[:-1], self.num_classes).movedim(-1, 1)
