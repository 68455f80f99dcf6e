"""Running means and checkpoints in the corners: meta device, half precision, untrained sources, small mass."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from cosify.errors import InputError
from cosify.heads import ClassParallelCosineLinear, CosineConv1x1, CosineHead, CosineLinear, HeadSpec


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


@pytest.mark.parametrize("value", [-5.0, 0.0, torch.nan, torch.inf, -torch.inf, (9.0, 9.0)], ids=str)
@pytest.mark.parametrize("name", ["kappa", "embedding_norm"])
@pytest.mark.parametrize("kappa", ["ls", "trainable", 60.0])
def test_kappa_and_norm_of_a_file_are_checked(kappa: float | str, name: str, value: float | tuple[float]) -> None:
    model = torch.nn.Sequential(CosineLinear(8, 4, kappa=kappa))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    damaged = {**before, f"0.{name}": torch.tensor(value)}
    with pytest.raises(InputError, match=rf"0\.{name} of a saved head is .*, expected a finite number above 0"):
        model.load_state_dict(damaged)
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in before.items())


@pytest.mark.parametrize("value", [-torch.inf, torch.inf, torch.nan, 1e4])
def test_trainable_kappa_of_a_file_is_checked(value: float) -> None:
    head = CosineLinear(8, 4, kappa="trainable")
    with pytest.raises(InputError, match=r"log_kappa of a saved head is (0\.0|inf|nan), expected a finite number"):
        head.load_state_dict({**head.state_dict(), "log_kappa": torch.tensor([value])})


@pytest.mark.parametrize("kind", [CosineLinear, CosineConv1x1, ClassParallelCosineLinear])
@pytest.mark.parametrize("kappa", ["ls", "trainable", 60.0])
def test_empty_storage_is_filled_by_reset_parameters(kappa: float | str, kind: type[CosineHead]) -> None:
    def numbers(head: CosineHead) -> dict[str, Tensor]:
        return {**dict(head.named_parameters()), **dict(head.named_buffers())}

    torch.manual_seed(3)
    expected = kind(8, 4, kappa=kappa)
    with torch.device("meta"):
        head = kind(8, 4, kappa=kappa)
    head = head.to_empty(device="cpu")
    for tensor in numbers(head).values():
        tensor.data.fill_(-7.0)  # what uninitialised memory may hold
    torch.manual_seed(3)
    head.reset_parameters()
    assert numbers(head).keys() == numbers(expected).keys() >= {"weight", "kappa", "embedding_norm"}
    for name, tensor in numbers(head).items():
        assert torch.equal(tensor, numbers(expected)[name]), name


@pytest.mark.parametrize("kappa", ["ls", "trainable", 60.0])
def test_kappa_starts_anew_in_empty_storage_whoever_fills_the_weight(kappa: float | str) -> None:
    with torch.device("meta"):
        model = timm.create_model("test_vit", head="cos", kappa=kappa, num_classes=4)
    head = model.to_empty(device="cpu").head
    model.init_weights()
    expected = CosineLinear(head.in_features, 4, kappa=kappa)
    assert (head.kappa, head.embedding_norm) == (expected.kappa, expected.embedding_norm)
    assert (head.log_kappa is None) == (expected.log_kappa is None)
    assert head.log_kappa is None or torch.equal(head.log_kappa, expected.log_kappa)


@pytest.mark.parametrize("kappa", ["ls", "trainable", "adacos"])
def test_a_new_head_of_other_classes_starts_its_own_kappa(kappa: str) -> None:
    model, other = (torch.nn.Sequential(CosineLinear(8, count, kappa=kappa)) for count in (4, 100))
    other[0].kappa.fill_(60.0)
    other[0].embedding_norm.fill_(7.0)
    if other[0].log_kappa is not None:
        torch.nn.init.constant_(other[0].log_kappa, 4.1)
    before = model[0].running_kappa()
    kept = {name: value for name, value in other.state_dict().items() if name != "0.weight"}
    model.load_state_dict(kept, strict=False)
    assert model[0].running_kappa() == before
    assert model[0].embedding_norm == 7, "of the backbone, which was loaded"
    model[0](torch.randn(6, 8))
    assert kappa == "trainable" or model[0].kappa == model[0].last_kappa.mean()


def test_timm_drops_the_kappa_of_a_classifier_that_it_drops(tmp_path: Path) -> None:
    trained = timm.create_model("test_resnet", head="cos", num_classes=100)
    trained.fc.kappa.fill_(60.0)
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    file = {"file": str(tmp_path / "trained.pth"), "num_classes": 100}
    for num_classes, is_kept in ((5, False), (100, True)):
        model = timm.create_model(
            "test_resnet", head="cos", num_classes=num_classes, pretrained=True, pretrained_cfg_overlay=file
        )
        assert torch.equal(next(model.parameters()), next(trained.parameters()))
        assert (model.fc.kappa == 60) == is_kept
