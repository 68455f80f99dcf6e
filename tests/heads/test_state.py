"""Running means and checkpoints in the corners: meta device, half precision, untrained sources, small mass."""

import pytest
import torch

from cosify.heads import CosineLinear, HeadSpec


@pytest.mark.parametrize("kappa", [60.0, "adacos", "ls", "trainable"])
@pytest.mark.parametrize("assign", [False, True])
def test_built_without_storage_then_loaded(kappa: float | str, assign: bool) -> None:
    source = CosineLinear(8, 4, kappa=kappa)
    source(torch.randn(6, 8))
    with torch.device("meta"):
        head = CosineLinear(8, 4, kappa=kappa)
    if not assign:
        head = head.to_empty(device="cpu")
        head.kappa.fill_(-7.0)  # what uninitialised memory may hold
    head.load_state_dict(source.state_dict(), assign=assign)
    x = torch.randn(3, 8)
    assert torch.equal(head.eval()(x), source.eval()(x))
    head.train()(x)
    assert head.kappa > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_running_kappa_stays_float32_in_a_half_precision_model(dtype: torch.dtype) -> None:
    head = CosineLinear(8, 4, kappa=60.3).to(dtype)
    assert head.kappa.dtype == torch.float32
    assert head.kappa.item() == pytest.approx(60.3, rel=1e-6)
    head = CosineLinear(8, 4).to(dtype)
    x = torch.randn(6, 8, dtype=dtype)
    for _ in range(300):
        head(x)
    assert head.last_kappa is not None
    assert head.kappa.item() == pytest.approx(head.last_kappa.mean().item(), rel=1e-4)


def test_checkpoint_of_an_untrained_head_leaves_the_first_batch_its_say() -> None:
    head = CosineLinear(8, 4)
    head.load_state_dict(CosineLinear(8, 4).state_dict())
    head(torch.empty(0, 8))
    head(100 * torch.randn(6, 8))
    assert head.last_kappa is not None
    torch.testing.assert_close(head.kappa, head.last_kappa.mean())
    assert head.embedding_norm > 50


def test_dynamic_adacos_stays_positive() -> None:
    head = CosineLinear(2, 3, kappa="adacos-dynamic")
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0], [-1, 0], [-1, 0.01]]))
    for _ in range(4):
        head(torch.tensor([[5.0, 0.1]] * 8))
        assert head.kappa > 0.1


def test_heads_of_different_policies_have_no_common_description() -> None:
    with pytest.raises(ValueError, match=r"\['a', 'b'\] have different kappa policies"):
        HeadSpec.of_heads({"a": CosineLinear(8, 4), "b": CosineLinear(8, 4, kappa=9.0)})


def test_start_kappa_is_checked() -> None:
    with pytest.raises(ValueError, match=r"kappa is -1, expected a finite number above 0"):
        CosineLinear(8, 4, start_kappa=-1)
