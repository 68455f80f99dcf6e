"""Classifier layers that return kappa times the cosine, with a kappa that a policy finds."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.fx import Proxy

from cosify.errors import InputError
from cosify.functional.checks import check_finite, check_shapes, in_backward, values_hidden
from cosify.functional.rows import common_dtype
from cosify.functional.scaled_cosine import kappa_times_cosine
from cosify.functional.search import Scan
from cosify.functional.similarity import evaluated_unit_rows, full_precision, is_ordinary, unit_rows
from cosify.heads.class_norms import ClassNorms
from cosify.heads.policies import Estimate, Geometry
from cosify.heads.running_kappa import EvalKappa, RunningKappa
from cosify.heads.unwrappable import watch_registrations


class CosineHead(RunningKappa):
    """What `CosineLinear` and `CosineConv1x1` share: the way from embeddings to logits, in training and evaluation."""

    process_group: ProcessGroup | None = None  # over which the classes are sharded
    own_rows = slice(None)  # of `last_kappa`: the samples of this process

    def cosine_logits(self, embedding: Tensor, weight: Tensor) -> Tensor:
        """Return kappa * cosine [B, C], float32 or float64, for `embedding` [B, d] and `weight` [C, d].

        Kobayashi, Eqs. (1) and (2).  An estimated kappa is a constant of the backward pass.  The running means are not
        updated in a transform of `torch.func`, which must be pure (per-sample gradients), nor where
        `torch.utils.checkpoint` repeats a pass.
        """
        weight = dense(weight)
        if self._is_plain_evaluation(embedding):
            return self._evaluated(embedding, weight)

        def kappa_of(scan: Scan | None) -> Tensor:
            kappa = self.batch_kappa(scan, self.num_classes).kappa
            if self.training and (torch.compiler.is_compiling() or not (values_hidden() or in_backward())):
                self.record(embedding.detach(), kappa.detach())
            return kappa

        with full_precision(embedding.device):
            return kappa_times_cosine(embedding, weight, kappa_of, self._estimates())

    def _estimates(self) -> bool:
        """Whether kappa is estimated from this batch."""
        return self.policy.estimates and (self.training or self.eval_kappa == "sample")

    def _is_plain_evaluation(self, embedding: Tensor) -> bool:
        """Whether all samples share a kappa, and nobody wants a gradient, a graph or a trace."""
        plain = not self.training and self.eval_kappa != "sample" and not torch.is_grad_enabled()
        eager = not values_hidden() and not torch.jit.is_tracing() and not embedding.is_meta  # type: ignore[attr-defined]
        return plain and eager and type(self.weight) is nn.Parameter and not self.weight.is_inference()

    def _evaluated(self, embedding: Tensor, weight: Tensor) -> Tensor:
        """Return the logits at the price of a linear layer: its product, the norms of the embeddings, two scalings."""
        check_shapes(embedding, weight)
        with full_precision(embedding.device):
            dtype = common_dtype(embedding, weight)
            inverse_norm = self._class_norms.inverse(self.weight, dtype)
            scale = self.single_kappa(training=False)
            rows = embedding.to(dtype)
            if embedding.device.type == "cpu" and is_ordinary(length := torch.linalg.vector_norm(rows, dim=1)):
                scale = (scale / length).unsqueeze(1)
            else:
                check_finite(embedding, "embedding")
                rows = evaluated_unit_rows(rows)
            logits = F.linear(rows, weight.to(dtype)).mul_(inverse_norm)
            return logits.mul_(scale)

    def as_node(self, input: Any) -> Tensor:
        """Return the whole layer as one node of a graph that `torch.fx` draws of the model around it."""
        tracer = input.tracer
        if tracer.root is self:
            raise InputError(
                f"torch.fx cannot trace a {type(self).__name__} alone: its kappa follows from values, and a symbol has"
                " none; trace the model that holds it, where it becomes one node, or use torch.export"
            )
        node: Tensor = tracer.create_proxy("call_module", tracer.path_of_module(self), (input,), {})
        return node

    def __prepare_scriptable__(self) -> "CosineHead":
        """Refuse `torch.jit.script`, which asks each module of a model before it compiles any."""
        raise InputError(
            f"torch.jit.script cannot compile the kappa policy of a {type(self).__name__}; use"
            " torch.jit.trace(model.eval(), example) or torch.export.export(model.eval(), (example,))"
        )

    def gathered(self, embedding: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the samples that this head's classes are compared with: here the process' own."""
        return embedding, labels, weights

    def classes_of(self, labels: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return the weight [c, d] of the classes held here, each sample's label among them, -1 for none, and C."""
        return self.weight.flatten(1), labels, self.num_classes

    def mean_of_all(self, values: Tensor) -> Tensor:
        """Return the mean of [B] values over the samples that this head's classes are compared with, a scalar."""
        return values.mean()

    @torch.no_grad()
    def stock_weight(self) -> Tensor:
        """Return a weight with which the stock layer, given a zero bias, predicts the same labels: `stock_rows`."""
        return stock_rows(dense(self.weight), self.inference_kappa(), float(self.embedding_norm))

    def batch_kappa(self, scan: Scan | None, num_classes: int, counted: Tensor | None = None) -> Estimate:
        """Return kappa of the scanned batch; only a trainable kappa has a gradient, to `log_kappa`.

        Args:
            scan: embeddings and classes; None for a policy that does not read them.
            num_classes: C, over all processes.
            counted: [B] bool, the samples that count in a statistic of the whole batch; default: all.
        """
        self._class_norms.forget()  # a step may follow
        if scan is None or not self._estimates():
            return Estimate(self.single_kappa(self.training).reshape(1).clone())  # the buffer changes within this step
        running, last = self.kappa.float(), self.last_kappa
        if last is None or len(last) == 0 or values_hidden():  # a graph takes the route that needs no start
            last = running.reshape(1)
        last = last.to(running.device)  # the head may have moved since
        estimate = self.policy.estimate(Geometry(scan, num_classes, running, last, counted))
        return Estimate(estimate.kappa.reshape(-1), estimate.softmax)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle; adapters and quantisers are watched from now on, as by a new head."""
        watch_registrations()
        super().__setstate__({"_class_norms": ClassNorms(), **state})  # earlier versions had none

    def _setup(self, num_classes: int, in_features: int, *kappa: Any) -> None:
        watch_registrations()
        self.num_classes = num_classes
        self._class_norms = ClassNorms()
        self._setup_kappa(num_classes, in_features, *kappa)

    def train(self, mode: bool = True) -> "CosineHead":
        """Set the mode, and forget the kept norms of the classes."""
        self._class_norms.forget()
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any) -> None:
        """Load, and forget the kept norms of the classes, without which torch may swap the weight for another one."""
        self._class_norms.forget()
        super()._load_from_state_dict(*args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CosineHead":
        """Move or cast, and forget the kept norms of the classes."""
        self._class_norms.forget()
        super()._apply(fn, recurse)
        return self

    def extra_repr(self) -> str:
        """Show the layer's own arguments and the kappa policy."""
        return f"{super().extra_repr()}, kappa={self.kappa_spec!r}, eval_kappa={self.eval_kappa!r}"


def stock_rows(weight: Tensor, kappa: Tensor | float, embedding_norm: Tensor | float) -> Tensor:
    """Return the weight [C, d] or [C, d, 1, 1] of a stock layer from that of a cosine head.

    Rows of one norm rank the classes by their cosine.  The norm kappa / E||x|| brings the logits close to the head's,
    as far as ||x|| varies little.
    """
    return (unit_rows(weight.flatten(1)) * (kappa / embedding_norm)).reshape(weight.shape)


def dense(weight: Tensor) -> Tensor:
    """Return the numbers of a weight that a quantiser such as torchao has put in its own kind of tensor."""
    if type(weight) in (Tensor, nn.Parameter) or type(weight).dequantize is Tensor.dequantize:
        return weight
    return weight.dequantize()


class CosineLinear(CosineHead, nn.Linear):
    """Classifier that returns kappa * cos(x, w_c), in place of `nn.Linear`.

    Kobayashi, Eqs. (1) and (2); kappa by policy: LS (10)-(11), ML (5)-(6), rule of thumb (4), trainable, AdaCos or
    fixed.  It is an `nn.Linear` without bias, so initialisers, optimisers and `isinstance` tests treat it as one; the
    parameter `weight` keeps its name.

    Args:
        in_features: d.
        num_classes: C, at least 2.
        kappa: a number above 0, or one of `"ls"`, `"2ls"`, `"ml"`, `"rule"`, `"trainable"`, `"adacos"`,
            `"adacos-dynamic"`.
        eval_kappa: in evaluation use the `"running"` mean of training, estimate for each `"sample"`, or use a number
            above 0, such as one that makes the probabilities right; the predicted label is the same.  With `"sample"`,
            `"ls"` and `"ml"` find a kappa for each sample by itself, and others give all samples one: `"rule"` that of
            the weights, `"adacos-dynamic"` that of the batch, on which a sample's probabilities then depend.
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
        self._setup(num_classes, in_features, kappa, eval_kappa, start_kappa, start_norm)

    def forward(self, input: Tensor | Proxy) -> Tensor:
        """Map embeddings [..., d] to logits [..., C], float32 (float64 for float64 inputs)."""
        if isinstance(input, Proxy):  # `torch.fx` draws a graph of the model
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
        self._setup(num_classes, in_features, kappa, eval_kappa, start_kappa, start_norm)

    def forward(self, input: Tensor | Proxy) -> Tensor:
        """Map a feature map [B, d, H, W] to logits [B, C, H, W], float32 (float64 for float64 inputs)."""
        if isinstance(input, Proxy):  # `torch.fx` draws a graph of the model
            return self.as_node(input)
        rows = input.movedim(1, -1)
        logits = self.cosine_logits(rows.reshape(-1, rows.shape[-1]), self.weight.flatten(1))
        return logits.reshape(*rows.shape[:-1], self.num_classes).movedim(-1, 1)
