"""One tester runs every head and every registered policy through what users do with a classifier."""

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cosify import functional
from cosify.heads import POLICIES, CosineConv1x1, CosineHead, CosineLinear
from tests import reference
from tests.processes import run_distributed

IN_FEATURES, NUM_CLASSES = 16, 7
SPECS: list[float | str] = [*POLICIES, 12.5]
HEADS = {"linear": CosineLinear, "conv": CosineConv1x1}

every_policy = pytest.mark.parametrize("kappa", SPECS, ids=str)
# Tracing takes seconds.  The running kappa is a buffer whatever the policy ("sample" has that of `trainable`), and a
# convolution goes the way of the linear head once its input is flat.
EVALUATED: list[tuple[float | str, str]] = [("ls", "running"), *((name, "sample") for name in SPECS)]
both_heads = pytest.mark.parametrize("kind", HEADS)


def make(kind: str, kappa: float | str, seed: int = 0, **settings: float | str) -> CosineHead:
    torch.manual_seed(seed)
    return HEADS[kind](IN_FEATURES, NUM_CLASSES, kappa=kappa, **settings)


def batch(kind: str = "linear", num_rows: int = 6, seed: int = 1) -> Tensor:
    shape = (num_rows, IN_FEATURES) if kind == "linear" else (num_rows, IN_FEATURES, 1, 1)
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trained(kind: str, kappa: float | str, **settings: float | str) -> CosineHead:
    """Return a head after three optimiser steps."""
    head = make(kind, kappa, **settings)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        F.cross_entropy(head(batch(kind, seed=step)).flatten(1), torch.arange(6)).backward()
        optimizer.step()
    return head


@every_policy
@both_heads
def test_a_number_for_evaluation_leaves_training_alone(kind: str, kappa: float | str) -> None:
    plain, numbered, x = trained(kind, kappa), trained(kind, kappa, eval_kappa=9.5), batch(kind)
    assert torch.equal(plain.weight, numbered.weight)
    assert numbered.running_kappa() == plain.running_kappa() != 9.5
    cosine = functional.cosine(x.flatten(1), numbered.weight.detach().flatten(1))
    numbered.eval()
    torch.testing.assert_close(numbered(x).flatten(1), 9.5 * cosine)  # a gradient may be wanted
    with torch.no_grad():
        torch.testing.assert_close(numbered(x).flatten(1), 9.5 * cosine)
    torch.testing.assert_close(
        numbered.stock_weight().flatten(1).norm(dim=1) * numbered.embedding_norm, torch.full((7,), 9.5)
    )


@every_policy
@both_heads
def test_logits_are_kappa_times_cosine(kind: str, kappa: float | str) -> None:
    head, x = make(kind, kappa), batch(kind)
    logits = head(x).flatten(1)
    cosine = reference.cosine(x.flatten(1).double().numpy(), head.weight.detach().flatten(1).double().numpy())
    assert head.last_kappa is not None
    assert head.last_kappa.shape == (6,)
    expected = head.last_kappa.double()[:, None] * torch.from_numpy(cosine)
    torch.testing.assert_close(logits, expected.float(), rtol=1e-5, atol=1e-5)
    estimate = {
        "ls": functional.ls_kappa,
        "ml": functional.ml_kappa,
        "rule": lambda _, w: functional.rule_kappa(w).expand(6),
        "2ls": lambda *_: torch.full((6,), 2.4 * functional.expected_kappa(NUM_CLASSES)),
        "adacos": lambda *_: torch.full((6,), functional.adacos_kappa(NUM_CLASSES)),
        "trainable": lambda *_: torch.full((6,), 1 / 0.07),
        12.5: lambda *_: torch.full((6,), 12.5),
    }.get(kappa)
    if estimate is not None:
        torch.testing.assert_close(head.last_kappa, estimate(x.flatten(1), head.weight.flatten(1)))


@every_policy
@both_heads
def test_first_batch_sets_kappa_and_evaluation_uses_it(kind: str, kappa: float | str) -> None:
    head, x = make(kind, kappa), batch(kind)
    head(x)
    assert head.last_kappa is not None
    torch.testing.assert_close(head.kappa, head.last_kappa.mean())
    torch.testing.assert_close(head.embedding_norm, x.flatten(1).norm(dim=1).mean())
    before = head.kappa.clone()
    head.eval()
    logits = head(batch(kind, seed=2)).flatten(1)
    cosine = functional.cosine(batch(kind, seed=2).flatten(1), head.weight.flatten(1))
    torch.testing.assert_close(logits, before * cosine)
    assert torch.equal(head.kappa, before)


@every_policy
@both_heads
def test_gradients_reach_every_parameter(kind: str, kappa: float | str) -> None:
    head, x = make(kind, kappa), batch(kind).requires_grad_()
    F.cross_entropy(head(x).flatten(1), torch.arange(6)).backward()
    for name, tensor in [("input", x), *head.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().sum() > 0, name


@every_policy
@both_heads
def test_training_lowers_the_loss(kind: str, kappa: float | str) -> None:
    head, x, y = make(kind, kappa), batch(kind), torch.arange(6)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(head(x).flatten(1), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert (head(x).flatten(1).argmax(1) == y).float().mean() > 0.6
    assert losses[-1] < losses[0]


@every_policy
@both_heads
def test_state_dict_round_trip(kind: str, kappa: float | str, tmp_path: Path) -> None:
    head = trained(kind, kappa).eval()
    torch.save(head.state_dict(), tmp_path / "head.pt")
    other = make(kind, kappa, seed=5)
    other.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    assert torch.equal(other.eval()(batch(kind)), head(batch(kind)))
    other.train()(batch(kind))  # a resumed head goes on averaging, it does not start again
    if kappa == "ls":
        assert abs(other.kappa - head.kappa) < 0.02 * head.kappa


@every_policy
@both_heads
def test_stock_checkpoint_loads_strictly(kind: str, kappa: float | str) -> None:
    stock = nn.Linear(IN_FEATURES, NUM_CLASSES) if kind == "linear" else nn.Conv2d(IN_FEATURES, NUM_CLASSES, 1)
    head = make(kind, kappa)
    head.load_state_dict(stock.state_dict(), strict=True)
    assert torch.equal(head.weight, stock.weight)


@every_policy
@both_heads
def test_checkpoint_of_another_policy(kind: str, kappa: float | str) -> None:
    source = trained(kind, "ls")
    head = make(kind, kappa, seed=5)
    start = head.start_kappa
    head.load_state_dict(source.state_dict(), strict=True)
    head.eval()
    found = (head(batch(kind)).flatten(1) / functional.cosine(batch(kind).flatten(1), head.weight.flatten(1))).mean()
    expected = start if kappa in ("2ls", "adacos", 12.5) else source.kappa.item()
    assert found.item() == pytest.approx(expected, rel=1e-4)


@every_policy
@both_heads
def test_copies(kind: str, kappa: float | str) -> None:
    head = trained(kind, kappa)
    buffer = io.BytesIO()
    torch.save(head, buffer)
    buffer.seek(0)
    whole = torch.load(buffer, weights_only=False)
    expected = head.eval()(batch(kind))
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head)), whole):
        assert torch.equal(other.eval()(batch(kind)), expected)


@every_policy
@both_heads
def test_ema(kind: str, kappa: float | str) -> None:
    head = trained(kind, kappa)
    ema = ModelEmaV3(head, decay=0.5)
    before = head.kappa.item()
    head(batch(kind, seed=9))
    ema.update(head)
    assert ema.module.kappa.item() == pytest.approx(0.5 * (before + head.kappa.item()), rel=1e-5)
    assert ema.module.eval()(batch(kind)).isfinite().all()


@every_policy
@both_heads
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(kind: str, kappa: float | str, dtype: torch.dtype) -> None:
    head, x = make(kind, kappa), batch(kind)
    expected = copy.deepcopy(head)(x)
    with torch.autocast("cpu", dtype=dtype):
        inside = head(x)
    assert torch.equal(inside, expected)
    low = make(kind, kappa).to(dtype)
    logits = low(x.to(dtype))
    assert logits.dtype == torch.float32
    assert low.last_kappa is not None
    assert (logits.flatten(1).abs().amax(1) <= low.last_kappa * (1 + 1e-5)).all()
    F.cross_entropy(logits.flatten(1), torch.arange(6)).backward()
    assert low.weight.grad is not None
    assert low.weight.grad.isfinite().all()


@every_policy
def test_overflow_does_not_poison_the_running_kappa(kappa: float | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU values are not checked, and a loss scaler skips the step: the buffers must survive it."""
    monkeypatch.setattr("cosify.functional.checks.values_visible", lambda values: False)
    head = trained("linear", kappa)
    before = head.kappa.clone(), head.embedding_norm.clone()
    x = batch()
    x[0] = torch.inf
    head(x)
    assert head.kappa.isfinite()
    assert torch.equal(head.embedding_norm, before[1])


@every_policy
@pytest.mark.parametrize("size", [0.0, 1e-29])  # the squares of the second are zeros in float32
def test_a_batch_without_length_leaves_a_head_that_can_be_loaded(kappa: float | str, size: float) -> None:
    head = make("linear", kappa)
    head(size * batch())
    assert head.embedding_norm == head.start_norm
    make("linear", kappa).load_state_dict(head.state_dict())
    head(batch())
    torch.testing.assert_close(head.embedding_norm, batch().norm(dim=1).mean(), msg="the first with a length sets it")


@every_policy
def test_empty_batch(kappa: float | str) -> None:
    head = trained("linear", kappa)
    before = head.kappa.clone()
    assert head(torch.empty(0, IN_FEATURES)).shape == (0, NUM_CLASSES)
    assert head.kappa.isfinite()
    if kappa not in ("rule", "trainable"):
        assert torch.equal(head.kappa, before)


@every_policy
def test_gradient_checkpointing(kappa: float | str) -> None:
    head, x = make("linear", kappa), batch().requires_grad_()
    F.cross_entropy(head(x), torch.arange(6)).backward()
    plain = x.grad
    other, y = make("linear", kappa), batch().requires_grad_()
    F.cross_entropy(checkpoint(other, y, use_reentrant=False), torch.arange(6)).backward()
    if kappa != "adacos-dynamic":  # its kappa depends on the call before
        torch.testing.assert_close(y.grad, plain)
    assert y.grad is not None
    assert y.grad.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "kappa"), [*(("linear", name) for name in SPECS), ("conv", "ls"), ("conv", 12.5)], ids=str
)
def test_compile_fullgraph(kind: str, kappa: float | str) -> None:
    torch.compiler.reset()
    eager, x = make(kind, kappa), batch(kind)
    compiled_head = copy.deepcopy(eager)
    compiled = torch.compile(compiled_head, fullgraph=True, backend="aot_eager")
    for step in range(2):
        torch.testing.assert_close(compiled(batch(kind, seed=step)), eager(batch(kind, seed=step)))
    torch.testing.assert_close(compiled_head.kappa, eager.kappa)
    compiled_head.eval()
    torch.testing.assert_close(compiled(x), eager.eval()(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "kappa", "eval_kappa"),
    [*(("linear", *case) for case in EVALUATED), ("conv", "ls", "running"), ("conv", "ls", "sample")],
)
def test_export_with_dynamic_batch(kind: str, kappa: float | str, eval_kappa: str) -> None:
    head = trained(kind, kappa, eval_kappa=eval_kappa).eval()
    program = torch.export.export(head, (batch(kind),), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    for num_rows in (6, 11):
        x = batch(kind, num_rows, seed=4)
        torch.testing.assert_close(program.module()(x), head(x))


@pytest.mark.slow
@pytest.mark.parametrize(("kappa", "eval_kappa"), EVALUATED)
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)  # onnx exporter
def test_onnx(kappa: float | str, eval_kappa: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    head, file = trained("linear", kappa, eval_kappa=eval_kappa).eval(), tmp_path / "head.onnx"
    torch.onnx.export(head, (batch(),), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: batch(seed=4).numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), head(batch(seed=4)).detach(), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """Train every policy under DDP in two processes, once for all rows of the contract."""
    folder = tmp_path_factory.mktemp("ddp")
    run_distributed("tests.heads.ddp_worker", folder, 2, ",".join(map(str, SPECS)))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@every_policy
def test_two_gloo_processes_keep_one_model(kappa: float | str, ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    first, second = (rank[str(kappa)] for rank in ranks)
    assert first.keys() == second.keys()
    for name in first:
        if name.endswith(("weight", "bias", "log_kappa")):
            assert torch.equal(first[name], second[name]), name
        assert first[name].isfinite().all(), name
