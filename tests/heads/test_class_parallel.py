"""The class-parallel head on two and three gloo processes equals the plain head in one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cosify.functional import cosine
from cosify.heads import (
    ClassParallelCosineLinear,
    CosineLinear,
    CosineSoftmaxLoss,
    load_class_parallel,
    save_class_parallel,
)
from tests.heads.class_parallel_worker import (
    CASES,
    IN_FEATURES,
    NUM_SEED_CLASSES,
    Case,
    backbone,
    batch,
    few,
    loaded_head,
    saved_file,
    seeded_weight,
    start_file,
    train,
)
from tests.processes import run_distributed

OLDER = b"an older file"
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}  # of float32 sums of numbers near 1 in another order, one step
DRIFT = {"rtol": 1e-4, "atol": 1e-5}  # after all steps

Ranks = list[dict[str, Any]]
both_sizes = pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.slow)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the start weights and the results of two processes."""
    folder = tmp_path_factory.mktemp("class_parallel")
    torch.manual_seed(1)
    for num_classes in sorted({case.num_classes for case in CASES.values()}):
        save_file({"weight": torch.randn(num_classes, IN_FEATURES)}, start_file(folder, num_classes))
    run_ranks(folder, 2)
    return folder


def run_ranks(folder: Path, world_size: int) -> None:
    blocked = folder / f"blocked{world_size}"
    (blocked / "folder").mkdir(parents=True)
    (blocked / "file").write_bytes(OLDER)
    run_distributed("tests.heads.class_parallel_worker", folder, world_size)


@pytest.fixture
def ranks(folder: Path, world_size: int) -> Ranks:
    if not (folder / f"rank0of{world_size}.pt").exists():
        run_ranks(folder, world_size)
    return [torch.load(folder / f"rank{rank}of{world_size}.pt") for rank in range(world_size)]


@pytest.mark.slow
@both_sizes
@pytest.mark.parametrize("sizes", [(1,), (0, 1), (0,)])
def test_few_samples_or_none(folder: Path, ranks: Ranks, world_size: int, sizes: tuple[int, ...]) -> None:
    expected = few(folder, sizes, None)
    for rank in ranks:
        torch.testing.assert_close(rank[f"few {sizes}"], expected)


def plain_head(folder: Path, case: Case) -> CosineLinear:
    head = CosineLinear(IN_FEATURES, case.num_classes, kappa=case.kappa)
    head.load_state_dict(load_file(start_file(folder, case.num_classes)))
    return head


def single(folder: Path, case: Case, world_size: int, steps: int | None = None) -> dict[str, Any]:
    return train(case, backbone(), plain_head(folder, case), range(world_size), steps or case.steps)


def concatenated(ranks: Ranks, name: str, part: str) -> Tensor:
    return torch.cat([rank[name][part]["weight"] for rank in ranks])


def assert_first_step_equal(ranks: Ranks, name: str, expected: dict[str, Any]) -> None:
    for rank in ranks:
        result = rank[name]
        assert torch.equal(result["kappas"][0], ranks[0][name]["kappas"][0])
        torch.testing.assert_close(result["kappas"][0], expected["kappas"][0], **ROUNDING)
        torch.testing.assert_close(result["losses"][0], expected["losses"][0], **ROUNDING)
        torch.testing.assert_close(result["backbone_gradient"], expected["backbone_gradient"], **ROUNDING)
        if "log_kappa" in result["gradient"]:
            torch.testing.assert_close(result["gradient"]["log_kappa"], expected["gradient"]["log_kappa"], **ROUNDING)
    gradient = concatenated(ranks, name, "gradient")
    torch.testing.assert_close(gradient, expected["gradient"]["weight"], **ROUNDING)
    assert gradient.abs().sum() > 0


@both_sizes
@pytest.mark.parametrize("name", CASES)
def test_training_equals_one_process(folder: Path, ranks: Ranks, world_size: int, name: str) -> None:
    case = CASES[name]
    expected = single(folder, case, world_size)
    assert_first_step_equal(ranks, name, expected)
    if case.kappa in ("ls", "ml"):  # values of the grid, so equal to the last bit
        assert torch.equal(ranks[0][name]["kappas"][0], expected["kappas"][0])
        assert len(expected["kappas"][0].unique()) > 1
    for rank in ranks:
        result = rank[name]
        for kappa, first_rank in zip(result["kappas"], ranks[0][name]["kappas"], strict=True):
            assert torch.equal(kappa, first_rank)
        torch.testing.assert_close(result["losses"], expected["losses"], **DRIFT)
        torch.testing.assert_close(result["backbone"], expected["backbone"], **DRIFT)
        small = {key: value for key, value in result["head"].items() if key != "weight"}
        torch.testing.assert_close(
            small, {key: value for key, value in expected["head"].items() if key != "weight"}, **DRIFT
        )
    torch.testing.assert_close(concatenated(ranks, name, "head"), expected["head"]["weight"], **DRIFT)


@both_sizes
@pytest.mark.parametrize("wrapper", ["accelerate", "fsdp"])
def test_backbone_may_be_wrapped_otherwise(folder: Path, ranks: Ranks, world_size: int, wrapper: str) -> None:
    expected = single(folder, CASES["long"], world_size, steps=1)
    assert_first_step_equal(ranks, wrapper, expected)
    for rank in ranks:
        torch.testing.assert_close(rank[wrapper]["backbone"], expected["backbone"], **ROUNDING)
    torch.testing.assert_close(concatenated(ranks, wrapper, "head"), expected["head"]["weight"], **ROUNDING)


@both_sizes
def test_saved_file_is_a_plain_heads(folder: Path, ranks: Ranks, world_size: int) -> None:
    path = saved_file(folder, world_size)
    state = load_file(path)
    assert torch.equal(state["weight"], concatenated(ranks, "long", "head"))
    CosineLinear(IN_FEATURES, 23).load_state_dict(state, strict=True)
    own = ranks[-1]["long"]["head"]
    assert state.keys() == own.keys()
    for name in state.keys() - {"weight"}:
        assert torch.equal(state[name], own[name]), name
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@both_sizes
def test_file_loads_on_any_number_of_processes(folder: Path, ranks: Ranks, world_size: int) -> None:
    state = load_file(saved_file(folder, 2))
    assert torch.equal(torch.cat([rank["loaded"]["weight"] for rank in ranks]), state["weight"])
    alone = ClassParallelCosineLinear(IN_FEATURES, 23)
    load_class_parallel(alone, saved_file(folder, 2))
    for loaded in (alone.state_dict(), ranks[-1]["loaded"] | {"weight": state["weight"]}):
        assert loaded.keys() == state.keys()
        for name in state:
            assert torch.equal(loaded[name], state[name]), name


@both_sizes
def test_refused_load_and_refused_head(ranks: Ranks, world_size: int) -> None:
    for rank in ranks:
        assert "holds a weight of shape [23, 16], this head has [24, 16]" in rank["wrong_classes"]
        assert f"{world_size - 1} classes came for {world_size} processes" in rank["too_few_classes"]


@both_sizes
def test_refused_save_raises_everywhere_and_leaves_nothing(folder: Path, ranks: Ranks, world_size: int) -> None:
    for rank in ranks:
        for message in rank["refused_saves"]:
            assert "cannot be written" in message
    blocked = folder / f"blocked{world_size}"
    assert sorted(path.name for path in blocked.iterdir()) == ["file", "folder"]
    assert (blocked / "file").read_bytes() == OLDER
    assert list((blocked / "folder").iterdir()) == []


def test_interrupted_save_keeps_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "head.safetensors"
    path.write_bytes(OLDER)

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match=r"head\.safetensors cannot be written \(no space left on device\)"):
        save_class_parallel(ClassParallelCosineLinear(IN_FEATURES, 23), path)
    assert path.read_bytes() == OLDER
    assert list(tmp_path.iterdir()) == [path]


@both_sizes
def test_start_does_not_depend_on_number_of_processes(ranks: Ranks, world_size: int) -> None:
    whole = seeded_weight()
    assert torch.equal(torch.cat([rank["seeded"] for rank in ranks]), whole)
    assert len(whole.unique(dim=0)) == len(whole)
    assert whole.abs().max() <= 0.5  # 1 / sqrt(d), as nn.Linear
    torch.testing.assert_close(whole.std(), torch.tensor(0.5 / 3**0.5), rtol=0.02, atol=0)


@both_sizes
def test_predict_equals_argmax_of_one_process(folder: Path, ranks: Ranks, world_size: int) -> None:
    weight = load_file(saved_file(folder, world_size))["weight"]
    model = backbone()
    with torch.no_grad():
        for parameter, trained in zip(model.parameters(), ranks[0]["long"]["backbone"], strict=True):
            parameter.copy_(trained)
        for number, rank in enumerate(ranks):
            largest, index = cosine(model(batch(CASES["long"], 99, [number])[0]), weight).max(dim=1)
            assert len(index) == 5 + number
            assert torch.equal(rank["predicted"][0], index)
            torch.testing.assert_close(rank["predicted"][1], largest, **ROUNDING)
            assert len(rank["no_samples"][0]) == number  # the first rank had none


def assert_sampled(gradient: Tensor, labels: Tensor, num_ranks: int) -> None:
    chosen = gradient.abs().sum(dim=1) > 0
    assert chosen[labels].all()
    sizes = [301 * (rank + 1) // num_ranks - 301 * rank // num_ranks for rank in range(num_ranks)]
    assert int(chosen.sum()) == sum(round(0.5 * size) for size in sizes)
    assert gradient.isfinite().all()


@both_sizes
def test_sampled_classes_of_all_ranks(ranks: Ranks, world_size: int) -> None:
    labels = batch(Case(num_classes=301), 0, range(world_size))[1]
    assert_sampled(torch.cat([rank["sampled"]["gradient"] for rank in ranks]), labels, world_size)
    for rank in ranks:
        assert rank["sampled"]["loss"].isfinite()
        assert torch.equal(rank["sampled"]["loss"], ranks[0]["sampled"]["loss"])
        assert torch.equal(rank["sampled"]["kappa"], ranks[0]["sampled"]["kappa"])
        assert rank["sampled"]["embedding"].isfinite().all()
        assert (rank["sampled"]["embedding"].abs().sum(dim=1) > 0).all()


def test_sampled_classes_equal_a_head_of_these_classes(folder: Path) -> None:
    case = Case(num_classes=301)
    head = loaded_head(folder, case, sample_fraction=0.5)
    x, labels, _ = batch(case, 0, [0, 1])
    loss = CosineSoftmaxLoss(head, label_smoothing=0.1)(x, labels)
    loss.backward()
    assert_sampled(head.weight.grad, labels, 1)
    chosen = (head.weight.grad.abs().sum(dim=1) > 0).nonzero().squeeze(1)
    plain = CosineLinear(IN_FEATURES, len(chosen))
    plain.load_state_dict({"weight": head.weight.detach()[chosen]})
    expected = CosineSoftmaxLoss(plain, label_smoothing=0.1)(x, torch.searchsorted(chosen, labels))
    expected.backward()
    assert torch.equal(head.last_kappa, plain.last_kappa)
    torch.testing.assert_close(loss, expected, **ROUNDING)
    torch.testing.assert_close(head.weight.grad[chosen], plain.weight.grad, **ROUNDING)


def test_all_classes_count_in_evaluation(folder: Path) -> None:
    case = Case(num_classes=301)
    head, plain = loaded_head(folder, case, sample_fraction=0.5).eval(), plain_head(folder, case).eval()
    x, labels, _ = batch(case, 0, [0, 1])
    torch.testing.assert_close(CosineSoftmaxLoss(head)(x, labels), CosineSoftmaxLoss(plain)(x, labels), **ROUNDING)


@pytest.mark.parametrize("name", CASES)
def test_alone_it_equals_the_plain_head(folder: Path, name: str) -> None:
    case = CASES[name]
    expected = single(folder, case, 2)
    result = train(case, backbone(), loaded_head(folder, case), range(2), case.steps)
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_alone_its_logits_and_predictions_equal_the_plain_heads(folder: Path) -> None:
    case = CASES["long"]
    head, plain = loaded_head(folder, case).eval(), plain_head(folder, case).eval()
    x = batch(case, 0, range(3))[0]
    expected = plain(x)
    torch.testing.assert_close(head(x), expected.detach(), **ROUNDING)
    index, largest = head.predict(x)
    assert torch.equal(index, expected.argmax(dim=1))
    torch.testing.assert_close(largest, cosine(x, plain.weight.detach()).amax(dim=1), **ROUNDING)


def test_saved_alone_it_loads_into_a_plain_head(tmp_path: Path) -> None:
    head = ClassParallelCosineLinear(IN_FEATURES, 23, kappa="trainable")
    path = save_class_parallel(head, tmp_path / "new" / "head.safetensors")
    plain = CosineLinear(IN_FEATURES, 23, kappa="trainable")
    plain.load_state_dict(load_file(path), strict=True)
    torch.testing.assert_close(dict(plain.state_dict()), dict(head.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_share_out_of_range(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"sample_fraction is {fraction}, expected a share"):
        ClassParallelCosineLinear(IN_FEATURES, 23, sample_fraction=fraction)


def test_too_few_classes() -> None:
    with pytest.raises(ValueError, match="0 classes came for 1 processes, expected at least one each"):
        ClassParallelCosineLinear(IN_FEATURES, 0)


@pytest.mark.parametrize("method", ["forward", "predict"])
def test_embeddings_are_checked(method: str) -> None:
    head = ClassParallelCosineLinear(IN_FEATURES, 23)
    with pytest.raises(ValueError, match="embedding holds NaN or infinity in 1 of 2 rows"):
        getattr(head, method)(torch.tensor([[1.0], [torch.nan]]).expand(2, IN_FEATURES))
    with pytest.raises(ValueError, match="embedding has dimension 4 and weight 16"):
        getattr(head, method)(torch.ones(2, 4))


def test_built_without_storage_it_starts_like_any_other() -> None:
    head = ClassParallelCosineLinear(4, NUM_SEED_CLASSES, device="meta").to_empty(device="cpu")
    torch.manual_seed(7)
    head.reset_parameters()
    assert torch.equal(head.weight, seeded_weight())
