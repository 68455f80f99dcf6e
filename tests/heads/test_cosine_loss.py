"""The embedding-level loss equals the plain path, in value and gradient, however it is used."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cosify import functional
from cosify.functional import ls
from cosify.functional.checks import values_unseen
from cosify.functional.margin import Margin
from cosify.functional.search import blocks
from cosify.heads import (
    POLICIES,
    ClassParallelCosineLinear,
    CosineConv1x1,
    CosineHead,
    CosineLinear,
    CosineSoftmaxLoss,
)
from tests import geometry
from tests.tensor_sizes import tensor_sizes

SPECS: list[float | str] = [*POLICIES, 30.0]
MARGINS = {"none": (0.0, 0.0), "cosine": (0.35, 0.0), "angle": (0.0, 0.5), "both": (0.2, 0.3)}
every_policy = pytest.mark.parametrize("kappa", SPECS, ids=str)
every_margin = pytest.mark.parametrize("margin", MARGINS)


@pytest.fixture(autouse=True)
def _always_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ls.GRID_WORK, "cpu", 0)


def problem(num_rows: int = 24, num_classes: int = 60, dim: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    embedding, weight = geometry.planted(num_rows, num_classes, dim, 45.0, seed=3)
    labels = (torch.arange(num_rows) % num_classes).roll(1) % num_classes
    labels[: num_rows // 2] = torch.arange(num_rows // 2)  # half of the labels are the nearest class
    return embedding, weight, labels


def head_of(weight: Tensor, kappa: float | str) -> CosineLinear:
    head = CosineLinear(weight.shape[1], weight.shape[0], kappa=kappa, dtype=weight.dtype)
    head.weight.data.copy_(weight)
    return head


def plain(
    head: CosineLinear, embedding: Tensor, labels: Tensor, margins: tuple[float, float], **settings: float
) -> Tensor:
    """Return the loss by autograd over [B, C], with kappa from the head's own forward pass."""
    head(embedding.detach())
    kappa = head.last_kappa if head.log_kappa is None else head.log_kappa.exp()
    similarity = F.linear(F.normalize(embedding), F.normalize(head.weight))
    target = similarity.gather(1, labels.unsqueeze(1))
    angle = torch.acos(target) + margins[1]
    shifted = torch.where(angle < math.pi, torch.cos(angle), target - margins[1] * math.sin(margins[1])) - margins[0]
    similarity = similarity.scatter(1, labels.unsqueeze(1), shifted)
    return F.cross_entropy(kappa.reshape(-1, 1) * similarity, labels, **settings)


def assert_same(value: Tensor | None, expected: Tensor | None, name: str, tolerance: float = 1e-5) -> None:
    assert value is not None, name
    assert expected is not None, name
    assert ((value - expected).norm() <= tolerance * expected.norm()).item(), name


@every_policy
@every_margin
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num_rows", [24, 40])  # below and above d: cosines kept in the gradient's place, or beside it
def test_value_and_gradients_equal_the_plain_path(
    kappa: float | str, margin: str, smoothing: float, num_rows: int
) -> None:
    embedding, weight, labels = problem(num_rows)
    expected_head, head = head_of(weight, kappa), head_of(weight, kappa)
    x, y = embedding.clone().requires_grad_(), embedding.clone().requires_grad_()
    expected = plain(expected_head, x, labels, MARGINS[margin], label_smoothing=smoothing)
    loss = CosineSoftmaxLoss(head, *MARGINS[margin], label_smoothing=smoothing, chunk=17)(y, labels)
    expected.backward()
    loss.backward()
    assert_same(loss, expected, "loss")
    assert_same(y.grad, x.grad, "embedding")
    for (name, value), (_, other) in zip(head.named_parameters(), expected_head.named_parameters(), strict=True):
        assert_same(value.grad, other.grad, name)
    assert_same(head.kappa, expected_head.kappa, "running kappa")
    assert_same(head.last_kappa, expected_head.last_kappa, "last kappa")
    assert_same(head.embedding_norm, expected_head.embedding_norm, "norm")


@pytest.mark.slow
@every_margin
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kappa", ["ls", "trainable", 8.0], ids=str)
def test_gradcheck(kappa: float | str, margin: str, smoothing: float) -> None:
    embedding, weight, labels = (part[:3] for part in problem(dim=3))
    head = head_of(weight.double(), kappa)
    criterion = CosineSoftmaxLoss(head, *MARGINS[margin], label_smoothing=smoothing, chunk=2)
    parameters = [parameter.detach().double().requires_grad_() for parameter in head.parameters()]
    names = [name for name, _ in head.named_parameters()]

    def loss(x: Tensor, *values: Tensor) -> Tensor:
        state = {f"head.{name}": value for name, value in zip(names, values, strict=True)}
        result: Tensor = torch.func.functional_call(criterion, state, (x, labels % 3))
        return result

    # log_kappa is a float32 parameter by design; its path is compared with autograd above.
    if kappa == "trainable":
        parameters = parameters[:1]
        names = names[:1]
    assert torch.autograd.gradcheck(loss, (embedding.double().requires_grad_(), *parameters))


@pytest.mark.parametrize("angle", [0.0, 0.5, 1.5])
def test_margin_is_its_definition_with_its_derivative(angle: float) -> None:
    cosine = torch.linspace(-0.999, 0.999, 101, dtype=torch.float64).requires_grad_()
    shifted, slope = Margin(0.1, angle).apply(cosine)
    theta = torch.acos(cosine)
    inside = theta + angle < math.pi
    torch.testing.assert_close(shifted[inside], torch.cos(theta + angle)[inside] - 0.1)
    (expected,) = torch.autograd.grad(shifted.sum(), cosine)
    torch.testing.assert_close(slope.detach(), expected)
    at_one, slope_at_one = Margin(0.0, angle).apply(torch.tensor([1.0, -1.0]))
    assert at_one.isfinite().all()
    assert slope_at_one.isfinite().all()


@pytest.mark.parametrize("kappa", ["ls", 148.0], ids=str)
def test_nothing_cancels_where_the_target_takes_all(kappa: float | str) -> None:
    """With p = 1 up to 1e-20, a margin decides the loss: S - e_y would be rounding alone."""
    embedding, weight = geometry.planted(20, 60, 32, 15.0, seed=3)
    labels = torch.arange(20)
    for margins in MARGINS.values():
        head = head_of(weight, kappa)
        loss = CosineSoftmaxLoss(head, *margins)(embedding, labels)
        exact = head_of(weight.double(), kappa)
        expected = CosineSoftmaxLoss(exact, *margins)(embedding.detach().double(), labels)
        torch.testing.assert_close(loss.double(), expected, rtol=2e-4, atol=1e-20)


def test_ignored_and_weighted_samples() -> None:
    embedding, weight, labels = problem()
    labels[::3] = -100
    kept = labels >= 0
    x, y = embedding.clone().requires_grad_(), embedding.clone().requires_grad_()
    head, other = head_of(weight, 12.0), head_of(weight, 12.0)
    CosineSoftmaxLoss(head)(x, labels).backward()
    F.cross_entropy(other(y), labels, ignore_index=-100).backward()
    assert_same(x.grad, y.grad, "embedding")
    assert_same(head.weight.grad, other.weight.grad, "weight")
    assert (x.grad[~kept] == 0).all()
    weights = torch.rand(len(labels)) + 0.1
    value = CosineSoftmaxLoss(head)(embedding, labels, weights)
    each = F.cross_entropy(other(embedding), labels, reduction="none")
    assert_same(value, (weights * each)[kept].sum() / weights[kept].sum(), "weighted mean")
    nothing = CosineSoftmaxLoss(head)(x, torch.full_like(labels, -100))
    nothing.backward()
    assert nothing.item() == 0
    assert x.grad.isfinite().all()
    assert CosineSoftmaxLoss(head, ignore_index=7)(embedding, torch.full_like(labels, 7)).item() == 0


@pytest.mark.parametrize("kind", [CosineLinear, ClassParallelCosineLinear])
@pytest.mark.parametrize("wrong", [-1, 60, 999])
def test_a_wrong_label_that_nobody_looks_at_makes_the_loss_nan(kind: type[CosineHead], wrong: int) -> None:
    embedding, weight, labels = problem()
    head = kind(weight.shape[1], len(weight))
    kappa = head.kappa.clone()
    for weights in (None, torch.rand(24), torch.ones(24, dtype=torch.int64)):
        with values_unseen():  # as on a GPU
            assert CosineSoftmaxLoss(head)(embedding, labels, weights).isfinite()
            assert CosineSoftmaxLoss(head)(embedding, labels.index_fill(0, torch.tensor(3), wrong), weights).isnan()
        assert head.kappa.isfinite()
    assert head.kappa != kappa


@every_policy
@pytest.mark.parametrize("how", ["label", "weight"])
@pytest.mark.parametrize("kind", [CosineLinear, ClassParallelCosineLinear])
def test_samples_left_out_count_in_no_running_mean(kind: type[CosineHead], kappa: float | str, how: str) -> None:
    """-100 or a weight of 0, long and at random: kappa and norm are those of the rest."""
    embedding, weight, labels = problem()
    head, kept_alone = kind(weight.shape[1], len(weight), kappa=kappa), head_of(weight, kappa)
    head.weight.data.copy_(weight)
    kept, weights = torch.arange(len(labels)) % 3 > 0, torch.full((len(labels),), 0.5)
    padded = torch.where(kept.unsqueeze(1), embedding, 100 * torch.randn_like(embedding))
    padded_labels = labels.masked_fill(~kept, -100) if how == "label" else labels
    for _ in range(2):  # the first batch sets the means, the second moves them
        sample_weight = None if how == "label" else weights * kept
        loss = CosineSoftmaxLoss(head)(padded, padded_labels, sample_weight)
        expected = CosineSoftmaxLoss(kept_alone)(embedding[kept], labels[kept])
    assert_same(head.kappa, kept_alone.kappa, "running kappa", 1e-6)
    assert_same(head.embedding_norm, kept_alone.embedding_norm, "norm", 1e-6)
    assert_same(loss, expected, "loss")
    before = {name: value.clone() for name, value in head.named_buffers()}
    assert CosineSoftmaxLoss(head)(padded, torch.full_like(labels, -100)).item() == 0
    for name, value in head.named_buffers():
        assert torch.equal(value, before[name]), name


def use_twice(criterion: CosineSoftmaxLoss, x: Tensor, labels: Tensor) -> None:
    (criterion(x[:12], labels[:12]) + criterion(x[12:], labels[12:])).backward()


def accumulate(criterion: CosineSoftmaxLoss, x: Tensor, labels: Tensor) -> None:
    for part in (slice(0, 12), slice(12, 24)):
        criterion(x[part], labels[part]).backward()


def retain(criterion: CosineSoftmaxLoss, x: Tensor, labels: Tensor) -> None:
    loss = criterion(x[:12], labels[:12])
    loss.backward(retain_graph=True)
    head, first = criterion.head, (x.grad.clone(), criterion.head.weight.grad.clone())
    x.grad = head.weight.grad = None
    loss.backward()  # the cosines are gone by now
    assert torch.equal(x.grad, first[0])
    assert torch.equal(head.weight.grad, first[1])
    criterion(x[12:], labels[12:]).backward()


def recompute(criterion: CosineSoftmaxLoss, x: Tensor, labels: Tensor) -> None:
    for part in (slice(0, 12), slice(12, 24)):
        loss: Tensor = checkpoint(criterion, x[part], labels[part], use_reentrant=False)
        loss.backward()


@pytest.mark.parametrize("use", [use_twice, accumulate, retain, recompute])
@pytest.mark.parametrize("kappa", ["ls", 12.0], ids=str)
def test_ways_to_use_it_in_one_step(use: Callable[..., None], kappa: float | str) -> None:
    embedding, weight, labels = problem()
    x, y = embedding.clone().requires_grad_(), embedding.clone().requires_grad_()
    head, other = head_of(weight, kappa), head_of(weight, kappa)
    use(CosineSoftmaxLoss(head, chunk=16), x, labels)
    for part in (slice(0, 12), slice(12, 24)):
        F.cross_entropy(other(y[part]), labels[part]).backward()
    assert_same(x.grad, y.grad, "embedding")
    assert_same(head.weight.grad, other.weight.grad, "weight")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_inputs_and_autocast(dtype: torch.dtype) -> None:
    embedding, weight, labels = problem()
    x = embedding.to(dtype).requires_grad_()
    head, exact = head_of(weight.to(dtype), "ls"), head_of(weight.to(dtype).float(), "ls")
    y = x.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = CosineSoftmaxLoss(head, 0.35)(x, labels)
    expected = CosineSoftmaxLoss(exact, 0.35)(y, labels)
    loss.backward()
    expected.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(head.last_kappa, exact.last_kappa)
    assert_same(loss, expected, "loss")
    assert x.grad.dtype == head.weight.grad.dtype == dtype
    assert_same(x.grad.float(), y.grad, "embedding", 1e-2)
    assert_same(head.weight.grad.float(), exact.weight.grad, "weight", 1e-2)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-44, 3e37])
def test_extreme_lengths_give_finite_numbers(scale: float) -> None:
    embedding, weight, labels = problem()
    x = (embedding / embedding.abs().max() * scale).requires_grad_()
    head = head_of(weight / weight.abs().max() * scale, "ls")
    head.weight.data[5], x.data[3] = 0, 0
    loss = CosineSoftmaxLoss(head, 0.3, 0.2)(x, labels)
    loss.backward()
    assert loss.isfinite()
    if scale in (1e-30, 1e30):
        assert x.grad.isfinite().all()
        assert head.weight.grad.isfinite().all()
        assert (head.weight.grad[5] == 0).all()


def test_training_lowers_the_loss_and_moves_kappa() -> None:
    embedding, weight, labels = problem()
    head = head_of(torch.randn_like(weight), "ls")
    criterion = CosineSoftmaxLoss(head, margin=0.35)
    optimizer = torch.optim.SGD(criterion.parameters(), lr=1.0, momentum=0.9)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = criterion(embedding, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert head.last_kappa is not None


def test_evaluation_uses_the_running_kappa_and_records_nothing() -> None:
    embedding, weight, labels = problem()
    head = head_of(weight, "ls")
    criterion = CosineSoftmaxLoss(head)
    criterion(embedding, labels)
    before = head.kappa.clone()
    criterion.eval()
    with torch.no_grad():
        loss = criterion(2 * embedding.flip(0), labels)
    assert_same(loss, F.cross_entropy(before * functional.cosine(embedding.flip(0), weight), labels), "loss")
    assert torch.equal(head.kappa, before)


def test_a_transposed_weight_and_small_integer_labels() -> None:
    embedding, weight, _ = problem(num_classes=200)
    labels = torch.arange(150, 174)  # 156 is -100 in eight bits
    head, other = head_of(weight, "ls"), head_of(weight, "ls")
    head.weight = torch.nn.Parameter(weight.T.contiguous().T)
    loss = CosineSoftmaxLoss(head)(embedding, labels.to(torch.uint8))
    expected = F.cross_entropy(other(embedding), labels)
    loss.backward()
    expected.backward()
    assert_same(loss, expected, "loss")
    assert_same(head.weight.grad, other.weight.grad, "weight")


def test_a_batch_without_samples() -> None:
    _, weight, _ = problem()
    head, x = head_of(weight, "ls"), torch.empty(0, 32, requires_grad=True)
    before = head.kappa.clone()
    loss = CosineSoftmaxLoss(head)(x, torch.empty(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert (head.weight.grad == 0).all()
    assert torch.equal(head.kappa, before)


def test_a_convolutional_head_takes_rows() -> None:
    embedding, weight, labels = problem()
    head = CosineConv1x1(32, 60, kappa="ls")
    head.weight.data.copy_(weight.reshape(head.weight.shape))
    CosineSoftmaxLoss(head)(embedding, labels).backward()
    assert head.weight.grad.shape == head.weight.shape
    other = head_of(weight, "ls")
    F.cross_entropy(other(embedding), labels).backward()
    assert_same(head.weight.grad.flatten(1), other.weight.grad, "weight")


def test_memory_stays_below_all_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of [B, C] numbers comes into being, forward or backward."""
    monkeypatch.setitem(blocks.STORE_BYTES, "cpu", 0)
    embedding, weight = geometry.planted(64, 6000, 16, 50.0, seed=1)  # B > d: the cosines do not fit the gradient
    head = head_of(weight, "ls")
    with tensor_sizes() as sizes:
        CosineSoftmaxLoss(head, 0.2, chunk=100)(embedding.requires_grad_(), torch.arange(64)).backward()
    assert max(sizes) <= weight.numel()
    assert weight.numel() < 64 * 6000


CASES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "head": (lambda: CosineSoftmaxLoss(torch.nn.Linear(3, 4)), TypeError, "head is Linear, expected a cosine head"),
    "margin": (lambda: CosineSoftmaxLoss(CosineLinear(3, 4), margin=-0.1), ValueError, "margin is -0.1"),
    "angle": (
        lambda: CosineSoftmaxLoss(CosineLinear(3, 4), angular_margin=28.6),
        ValueError,
        r"angular_margin is 28.6, expected radians in \[0, pi / 2\]",
    ),
    "smoothing": (lambda: CosineSoftmaxLoss(CosineLinear(3, 4), label_smoothing=1.0), ValueError, "label_smoothing is"),
    "chunk": (lambda: CosineSoftmaxLoss(CosineLinear(3, 4), chunk=0), ValueError, "chunk is 0, expected at least one"),
    "label": (
        lambda: CosineSoftmaxLoss(CosineLinear(3, 4))(torch.randn(2, 3), torch.tensor([1, 4])),
        ValueError,
        "1 of 2 labels out of range, such as 4, expected 0 to 3, or -100",
    ),
    "soft labels": (
        lambda: CosineSoftmaxLoss(CosineLinear(3, 4))(torch.randn(2, 3), torch.rand(2, 4)),
        ValueError,
        r"labels are torch.float32 of shape \[2, 4\]",
    ),
    "weights": (
        lambda: CosineSoftmaxLoss(CosineLinear(3, 4))(torch.randn(2, 3), torch.tensor([1, 2]), torch.ones(3)),
        ValueError,
        r"sample_weight has shape \[3\], expected \[2\]",
    ),
    "negative weight": (
        lambda: CosineSoftmaxLoss(CosineLinear(3, 4))(torch.randn(2, 3), torch.tensor([1, 2]), -torch.ones(2)),
        ValueError,
        "sample_weight holds NaN, infinity or negative",
    ),
    "features": (
        lambda: CosineSoftmaxLoss(CosineLinear(3, 4))(torch.randn(2, 5), torch.tensor([1, 2])),
        ValueError,
        "embedding has dimension 5 and weight 3",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gives_one_clear_error(name: str) -> None:
    call, kind, message = CASES[name]
    with pytest.raises(kind, match=message):
        call()


def test_heads_of_the_registry_are_covered() -> None:
    assert set(POLICIES) <= set(SPECS)
    assert issubclass(CosineConv1x1, CosineHead)
