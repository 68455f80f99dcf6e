"""The embedding-level loss: kappa, margins and Eq. (2) in one module, for a hundred classes or a million."""

import torch
from torch import Tensor, nn

from cosify.errors import InputError
from cosify.functional.blockwise_loss import chunked_loss, with_cosines
from cosify.functional.checks import check_chunk, check_shapes, in_backward, values_visible
from cosify.functional.fusion import fusing
from cosify.functional.margin import Margin
from cosify.functional.search import Scan
from cosify.functional.similarity import full_precision
from cosify.heads.cosine_head import CosineHead

IGNORE_INDEX = -100  # as in torch.nn.functional.cross_entropy


class CosineSoftmaxLoss(nn.Module):
    """Cross-entropy of kappa times the cosines, from embeddings, in memory for O(B chunk) and the weight's gradient.

    Kobayashi, Eqs. (2) and (10)-(13); CosFace (Wang et al., CVPR 2018), ArcFace (Deng et al., CVPR 2019).  The value
    and the gradients are those of `F.cross_entropy(head(embedding), labels)`.  LS finds kappa from the cosines without
    margin, and hands the softmax average that it ends with to the loss and to the embedding's gradient.

    It holds the head, so it goes wherever the head's parameters have to go: into the optimiser, into
    `accelerator.prepare` or DDP.  A class-parallel head is the exception, see there.

    Args:
        head: a cosine head, of any kappa policy; its running kappa is kept up as in its own forward pass.
        margin: taken off the target's cosine (CosFace), such as 0.35.
        angular_margin: added to the target's angle (ArcFace), in radians, such as 0.5; may be combined.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        chunk: classes in a block.  Default: what fits 1 MiB on a CPU, 256 MiB on a GPU.
        ignore_index: a label that says to leave the sample out.
        fused: let `torch.compile` join the short operations, for a GPU and many classes; it takes a minute at the
            start.  Without effect on a class-parallel head, whose processes must compute the same numbers.

    Raises:
        TypeError: if `head` is no cosine head.
        ValueError: if a number is out of range.
    """

    fused = False  # of a loss pickled by an earlier version

    def __init__(
        self,
        head: CosineHead,
        margin: float = 0.0,
        angular_margin: float = 0.0,
        label_smoothing: float = 0.0,
        chunk: int | None = None,
        ignore_index: int = IGNORE_INDEX,
        fused: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(head, CosineHead):
            raise TypeError(f"head is {type(head).__name__}, expected a cosine head; call cosify.convert on the model")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing is {label_smoothing}, expected a share in [0, 1), such as 0.1")
        check_chunk(chunk)
        self.head = head
        self.margin = Margin(margin, angular_margin)
        self.label_smoothing = label_smoothing
        self.chunk = chunk
        self.ignore_index = ignore_index
        self.fused = fused

    def forward(self, embedding: Tensor, labels: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the mean loss, weighted by sample, over the samples that have a label.

        Samples without a label or with weight 0 count nowhere, not even in the head's running kappa and norm.  There,
        every other sample counts once, whatever its weight, as in the head's own forward pass.

        Args:
            embedding: [B, d], any norm; gradients leave in its dtype.
            labels: [B], class indices in [0, C), or `ignore_index`.
            sample_weight: [B], from 0 on; the mean is divided by its sum.

        Returns:
            Scalar, float32 (float64 for float64 inputs); 0 if no sample counts.  NaN for a label out of range where
            no value is read, on a GPU.

        Raises:
            ValueError: if shapes do not fit, or a CPU input is not finite or out of range.
        """
        head = self.head
        embedding, labels, weights = head.gathered(embedding, *self._checked(embedding, labels, sample_weight))
        weight, index, num_classes = head.classes_of(labels)
        with full_precision(embedding.device), fusing(self.fused and head.process_group is None):
            classes = Scan.of(embedding, weight, self.chunk, head.process_group)
            scan, room = with_cosines(classes.without(index, labels >= 0), weight)
            counted = weights > 0
            estimate = head.batch_kappa(scan, num_classes, counted)
            state = estimate.softmax
            if state is None:
                state, _ = scan.evaluate(estimate.kappa.detach().reshape(1, -1))
            if head.training and not in_backward():
                head.record(embedding.detach(), estimate.kappa.detach(), counted)
            weights = weights.to(classes.blocks.embedding.dtype)
            weights = weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
            kappa = estimate.kappa.to(weights.dtype)
            smoothing = (self.label_smoothing, self.label_smoothing / num_classes)
            return chunked_loss(embedding, weight, kappa, scan, state, self.margin, *smoothing, weights, room)

    def _checked(self, embedding: Tensor, labels: Tensor, sample_weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return labels, -1 for none, and the weight of each sample: 0 for one to ignore, NaN for a wrong label."""
        check_shapes(embedding, self.head.weight.flatten(1))
        num_rows, num_classes = len(embedding), self.head.num_classes
        if labels.is_floating_point() or labels.dtype == torch.bool or labels.shape != (num_rows,):
            raise InputError(
                f"labels are {labels.dtype} of shape {list(labels.shape)}, expected [{num_rows}] integer class indices;"
                " for soft targets use F.cross_entropy(head(embedding), targets)"
            )
        labels = labels.long()  # -100 is 156 among uint8
        ignored = labels == self.ignore_index
        wrong = ((labels < 0) | (labels >= num_classes)) & ~ignored
        if values_visible(labels) and bool(wrong.any()):
            raise InputError(
                f"{int(wrong.sum())} of {num_rows} labels out of range, such as {int(labels[wrong][0])}, expected 0 to"
                f" {num_classes - 1}, or {self.ignore_index} to leave a sample out; re-index the labels"
            )
        weights = torch.ones_like(labels, dtype=torch.float32) if sample_weight is None else sample_weight.detach()
        if weights.shape != (num_rows,):
            raise InputError(f"sample_weight has shape {list(weights.shape)}, expected [{num_rows}], one for each row")
        if values_visible(weights) and not bool((weights.isfinite() & (weights >= 0)).all()):
            raise InputError("sample_weight holds NaN, infinity or negative numbers, expected weights from 0 on")
        weights = torch.where(wrong, torch.nan, weights.masked_fill(ignored, 0.0))
        return labels.masked_fill(ignored | wrong, -1), weights

    def extra_repr(self) -> str:
        """Show margins and smoothing."""
        margin = self.margin
        return f"margin={margin.cosine}, angular_margin={margin.angle}, label_smoothing={self.label_smoothing}"
