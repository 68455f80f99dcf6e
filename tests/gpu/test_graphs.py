"""A training step that a CUDA graph has captured goes on as the same steps one by one."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosify.heads import CosineLinear, CosineSoftmaxLoss
from tests import geometry
from tests.gpu.device import DEVICE, head_of, needs_cuda, on_gpu

pytestmark = [*on_gpu, needs_cuda("CUDA graphs")]
WARM_UP, REPLAYS = 3, 4
Criterion = Callable[[Tensor, Tensor], Tensor]


class Trained:
    """A layer, a cosine head and SGD."""

    def __init__(self, kappa: float | str, by_loss: bool) -> None:
        _, weight = geometry.random(1, 100, 32, seed=1)
        self.head: CosineLinear = head_of(weight, kappa)
        torch.manual_seed(0)
        self.backbone = nn.Linear(32, 32).to(DEVICE)
        self.optimizer = torch.optim.SGD([*self.backbone.parameters(), *self.head.parameters()], lr=0.1, momentum=0.9)
        self.criterion: Criterion = (
            CosineSoftmaxLoss(self.head) if by_loss else lambda x, y: F.cross_entropy(self.head(x), y)
        )

    def step(self, x: Tensor, labels: Tensor) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.criterion(self.backbone(x), labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        assert self.head.last_kappa is not None
        backbone = {f"backbone.{name}": value for name, value in self.backbone.state_dict().items()}
        return {**self.head.state_dict(), **backbone, "last_kappa": self.head.last_kappa}


def batches() -> list[tuple[Tensor, Tensor]]:
    made = []
    for number in range(REPLAYS):
        x, _ = geometry.random(24, 1, 32, seed=10 + number)
        labels = torch.randint(100, (24,), generator=torch.Generator().manual_seed(number))
        made.append((x.to(DEVICE), labels.to(DEVICE)))
    return made


def test_a_replayed_evaluation_sees_a_new_weight() -> None:
    x, weight = (rows.to(DEVICE) for rows in geometry.random(24, 100, 32, seed=1))
    head = head_of(weight, 16.0).eval()
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.no_grad():
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                head(x)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            logits = head(x)
        for new in (weight, weight.flip(0) * torch.linspace(0.2, 5, 100, device=DEVICE).unsqueeze(1)):
            head.load_state_dict({**head.state_dict(), "weight": new})
            graph.replay()
            torch.testing.assert_close(logits, head(x))


@pytest.mark.parametrize(
    ("kappa", "by_loss"), [(16.0, False), ("trainable", False), ("ls", False), (16.0, True)], ids=str
)
def test_replays_equal_steps_one_by_one(kappa: float | str, by_loss: bool) -> None:
    captured, eager = Trained(kappa, by_loss), Trained(kappa, by_loss)
    x, labels = (values.clone() for values in batches()[0])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            captured.step(x, labels)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    captured.optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss = captured.step(x, labels)

    for _ in range(WARM_UP):
        eager.step(*batches()[0])
    losses = []
    for new_x, new_labels in batches():
        x.copy_(new_x)
        labels.copy_(new_labels)
        graph.replay()
        expected = eager.step(new_x, new_labels)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(captured.state(), eager.state(), rtol=1e-4, atol=1e-6)
        losses.append(loss.item())
    assert len(set(losses)) == REPLAYS
