"""The embedding-level loss needs the weight's gradient and some blocks, however many classes there are."""

import pytest
import torch
from torch import Tensor

from cosify.heads import CosineLinear, CosineSoftmaxLoss
from tests.gpu.device import DEVICE, needs_cuda, on_gpu

pytestmark = [*on_gpu, needs_cuda("counter of its memory")]
# Rows, classes, and bytes beside the gradient, in whose place the cosines lie.  BLOCK_BYTES gives 46,716 and 90,910
# classes in a block.  Of a block there are three arrays [c, 512] at once, as prototypes, their gradient and its part
# along them, 290 and 560 MB, and a few [B, c] of 24 MB.
LIMITS = [(128, 93_431, 450_000_000), (64, 1_000_000, 750_000_000)]


def batch(head: CosineLinear, num_rows: int) -> Tensor:
    """Return embeddings at 45 degrees from the first prototypes."""
    own = torch.nn.functional.normalize(head.weight.detach()[:num_rows])
    noise = torch.nn.functional.normalize(torch.randn_like(own))
    return (own + noise).requires_grad_()


def step(head: CosineLinear, x: Tensor, margin: float) -> Tensor:
    loss = CosineSoftmaxLoss(head, margin)(x, torch.arange(len(x), device=DEVICE))
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("margin", [0.0, 0.35])
@pytest.mark.parametrize(("num_rows", "num_classes", "limit"), LIMITS)
def test_a_step_of_least_squares_stays_within_its_blocks(
    num_rows: int, num_classes: int, limit: int, margin: float
) -> None:
    dim = 512
    torch.manual_seed(0)
    head = CosineLinear(dim, num_classes, device=DEVICE)
    x = batch(head, num_rows)
    step(CosineLinear(dim, 1000, device=DEVICE), x, margin)  # sets up cuBLAS, whose workspace is counted too
    x.grad = None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    loss = step(head, x, margin)
    peak = torch.cuda.max_memory_allocated() - before
    assert 0 < peak - 4 * num_classes * dim < limit
    assert loss.isfinite()
    assert head.weight.grad is not None
    assert (head.weight.grad[:num_rows].abs().sum(dim=1) > 0).all()
    assert head.last_kappa is not None
    assert ((head.last_kappa > 5) & (head.last_kappa < 60)).all()
