"""Evaluation keeps the norms of the classes, and notices whatever changes the weight."""

import copy
import pickle
import threading
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosify.heads import CosineConv1x1, CosineHead, CosineLinear, CosineSoftmaxLoss, class_norms

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))


def reference(head: CosineHead, x: Tensor = X) -> Tensor:
    rows = head.weight.detach().flatten(1).double()
    return head.inference_kappa() * F.normalize(x.double(), eps=1e-300) @ F.normalize(rows, eps=1e-300).T


@torch.no_grad()
def check(head: CosineHead, x: Tensor = X) -> None:
    images = x if isinstance(head, CosineLinear) else x[..., None, None]
    torch.testing.assert_close(head(images).flatten(1).double(), reference(head, x), rtol=1e-5, atol=1e-5)


def step(head: CosineHead, optimizer: torch.optim.Optimizer) -> None:
    was_training = head.training
    (head(X if isinstance(head, CosineLinear) else X[..., None, None]).flatten(1)[:, 0]).sum().backward()
    optimizer.step()
    assert head.training == was_training


def averaged(head: CosineHead) -> None:
    """Overwrite the weight as averages of weights do."""
    average = timm.utils.ModelEmaV3(nn.Sequential(head), decay=0.5)
    average.module[0] = head
    other = nn.Sequential(copy.deepcopy(head))
    nn.init.normal_(other[0].weight)
    average.update(other)


CHANGES: dict[str, Callable[[CosineHead], object]] = {
    "in place": lambda head: head.weight.detach().mul_(torch.rand_like(head.weight)),
    "one number": lambda head: head.weight.detach().view(-1)[3:4].add_(1),
    "SGD": lambda head: step(head, torch.optim.SGD(head.parameters(), lr=1.0)),
    "SGD, fused": lambda head: step(head, torch.optim.SGD(head.parameters(), lr=1.0, fused=True)),
    "AdamW, for each": lambda head: step(head, torch.optim.AdamW(head.parameters(), lr=1.0, foreach=True)),
    "load": lambda head: head.load_state_dict({**head.state_dict(), "weight": OTHER.reshape(head.weight.shape)}),
    "load, assign": lambda head: head.load_state_dict(
        {**head.state_dict(), "weight": OTHER.reshape(head.weight.shape)}, assign=True
    ),
    "another parameter": lambda head: setattr(head, "weight", nn.Parameter(OTHER.reshape(head.weight.shape))),
    "other data": lambda head: setattr(head.weight, "data", OTHER.clone().reshape(head.weight.shape)),
    "past autograd": lambda head: head.weight.data.copy_(OTHER.reshape(head.weight.shape)),
    "float64 and back": lambda head: head.double().float(),
    "half precision": lambda head: head.bfloat16().float(),
    "reset": lambda head: head.reset_parameters(),
    "average": averaged,
}


@pytest.mark.parametrize("kind", [CosineLinear, CosineConv1x1])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_weight_is_noticed(change: str, kind: type[CosineHead]) -> None:
    torch.manual_seed(2)
    head = kind(8, 6, kappa=20).eval()
    for _ in range(2):
        check(head)
        CHANGES[change](head)
        head.zero_grad()
    check(head)


@pytest.mark.parametrize("kind", [CosineLinear, CosineConv1x1])
def test_one_row_of_many_is_noticed(kind: type[CosineHead]) -> None:
    torch.manual_seed(2)
    for width in (1, 2, 16):
        head, x = kind(width, 1000, kappa=20).eval(), torch.randn(5, width)
        for label in (0, 1, 15, 16, 17, 498, 999):
            check(head, x)
            head.weight.data[label] = 9 * torch.randn_like(head.weight[label])
        check(head, x)


def test_norms_are_kept() -> None:
    head = CosineLinear(8, 6).eval()
    check(head)
    first = head._class_norms._kept
    check(head)
    assert head._class_norms._kept is first is not None
    head.eval()
    assert head._class_norms._kept is None


def test_the_loss_forgets_them_as_a_fused_step_changes_no_version() -> None:
    head = CosineLinear(8, 6).eval()
    loss = CosineSoftmaxLoss(head)
    for _ in range(2):
        check(head)
        loss(X, torch.arange(5))
        assert head._class_norms._kept is None


def test_a_cuda_graph_keeps_none_and_each_stream_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    head = CosineLinear(8, 6).eval()
    with monkeypatch.context() as patch:
        patch.setattr(class_norms, "_is_captured", lambda weight: True)
        check(head)
        assert head._class_norms._kept is None
    check(head)
    first = head._class_norms._kept
    monkeypatch.setattr(class_norms, "_stream_of", lambda weight: 1)
    check(head)
    assert head._class_norms._kept is not first is not None


def test_torch_may_swap_the_weight_of_a_load() -> None:
    head = CosineLinear(8, 6).eval()
    check(head)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        head.load_state_dict({**head.state_dict(), "weight": OTHER})
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert torch.equal(head.weight, OTHER)
    check(head)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda head: pickle.loads(pickle.dumps(head))])
def test_a_copy_has_its_own(copied: Callable[[CosineHead], CosineHead]) -> None:
    head = CosineLinear(8, 6).eval()
    check(head)
    other = copied(head)
    nn.init.normal_(other.weight)
    check(other)
    check(head)


def test_what_is_changed_from_call_to_call() -> None:
    head = CosineLinear(8, 6, kappa=20).eval()
    check(head)
    with torch.no_grad():
        logits = torch.func.functional_call(head, {"weight": OTHER}, (X,))
    torch.testing.assert_close(logits, 20 * F.normalize(X) @ F.normalize(OTHER).T)
    check(head)
    with torch.inference_mode():
        check(head)
    logits = head(X.requires_grad_())  # with gradients, whose graph cannot hold an inference tensor
    logits.sum().backward()
    X.requires_grad_(False)
    check(head)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_graphs_hold_no_norms() -> None:
    head = CosineLinear(8, 6, kappa=20).eval()
    check(head)
    with torch.no_grad():
        traced = torch.jit.trace(head, (X,), check_trace=False)
        compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
        exported = torch.export.export(head, (X,)).module()
        for graph in (traced, compiled, exported):
            torch.testing.assert_close(graph(X).double(), reference(head), rtol=1e-5, atol=1e-5)
        head.weight.copy_(OTHER)
        torch.testing.assert_close(compiled(X).double(), reference(head), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(traced(X).double(), reference(head), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["ls", "trainable", "adacos", 60.0])
@pytest.mark.parametrize("exponent", [-30, 0, 30])
def test_the_whole_range_of_numbers(policy: float | str, exponent: int) -> None:
    head = CosineLinear(8, 6, kappa=policy).eval()
    with torch.no_grad():
        head.weight.copy_(OTHER * 10.0**-exponent)
    x = X * 10.0**exponent
    x[1] = 0
    check(head, x)
    with torch.no_grad():
        assert torch.equal(head(x)[1], torch.zeros(6))
        assert head(x[:0]).shape == (0, 6)


def test_a_head_that_inference_mode_made_has_no_versions() -> None:
    with torch.inference_mode():
        head = CosineLinear(8, 6).eval()
        for _ in range(2):
            check(head)
            nn.init.normal_(head.weight)


def test_numbers_that_are_none_are_one_error() -> None:
    head = CosineLinear(8, 6).eval()
    check(head)
    with torch.no_grad(), pytest.raises(ValueError, match="embedding holds NaN or infinity in 1 of 5 rows"):
        head(X.clone().index_fill(0, torch.tensor(2), torch.inf))
    nn.init.constant_(head.weight[1], torch.nan)
    with torch.no_grad(), pytest.raises(ValueError, match="weight holds NaN or infinity in 1 of 6 rows"):
        head(X)


def test_threads_share_a_head() -> None:
    head, wrong = CosineLinear(8, 6, kappa=20).eval(), []

    def ask() -> None:
        try:
            for _ in range(200):
                check(head)
                head.eval()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
