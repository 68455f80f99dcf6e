"""The loop as a whole: it learns, repeats itself, records everything, and equals itself on two ranks."""

import json
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from cosify.console.training import plot, summary
from cosify.heads import CosineLinear
from cosify.training import TrainArguments, predict_labels, read_metrics, session, train
from tests.data.folders import CIFAR100, image_folder
from tests.processes import ROOT, run_distributed, run_python
from tests.training import ddp_worker
from tests.training.records import recorded

TINY = ["channels=(8, 8, 8, 16)", "stem_width=8"]


@pytest.fixture
def args(tmp_path: Path) -> TrainArguments:
    return TrainArguments(data="synthetic", epochs=2, batch_size=64, model_kwargs=TINY, output=str(tmp_path / "run"))


def test_a_run_learns_and_records(args: TrainArguments) -> None:
    result = train(replace(args, epochs=10, model_kwargs=[]))
    assert result.is_main
    assert result.evaluation.accuracy > 0.8
    assert isinstance(result.model.fc, CosineLinear)
    records = read_metrics(result.folder.path)
    assert [each["epoch"] for each in records] == list(range(1, 11))
    assert records[-1]["step"] == 10 * 5
    assert records[-1]["test_accuracy"] == result.evaluation.accuracy
    assert records[-1]["mean_angle_deg"] < records[0]["mean_angle_deg"]
    assert records[-1]["kappa_mean"] == result.kappa.mean
    assert sum(records[-1]["kappa_histogram"]) == 320
    config = json.loads((result.folder.path / "config.json").read_text())
    assert (config["model"], config["head"], config["num_train"], config["image_shape"]) == (
        "resnet10t",
        "ls",
        320,
        [1, 32, 32],
    )
    assert config["arguments"]["epochs"] == 10
    environment = json.loads((result.folder.path / "environment.json").read_text())
    assert (environment["device"], environment["world_size"]) == ("cpu", 1)
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    (newest,) = (path for path in result.folder.checkpoints.iterdir() if path.is_dir())
    assert newest.name == "step-000000050"
    assert {path.name for path in newest.iterdir()} >= {"model.safetensors", "optimizer.bin", "progress.json"}
    predicted = predict_labels(result)
    assert float((predicted == result.data.test.labels).double().mean()) == pytest.approx(result.evaluation.accuracy)


def test_runs_repeat_to_the_bit_and_seeds_matter(args: TrainArguments, tmp_path: Path) -> None:
    first, same, other = (
        recorded(train(replace(args, seed=seed, output=str(tmp_path / name))).folder.path)
        for seed, name in ((3, "a"), (3, "b"), (4, "c"))
    )
    assert first == same
    assert first[0]["train_loss"] != other[0]["train_loss"]


@pytest.mark.parametrize(
    ("kappa", "check"),
    [
        ("20", lambda first, last: first["kappa_mean"] == last["kappa_mean"] == 20.0),
        ("trainable", lambda first, last: first["kappa_mean"] != last["kappa_mean"] and last["kappa_median"] > 0),
        ("ml", lambda first, last: last["kappa_median"] > 0),
        ("rule", lambda first, last: last["kappa_median"] > 0),
        ("adacos", lambda first, last: abs(last["kappa_mean"] - 2**0.5 * 2.1972246) < 1e-5),
        ("adacos-dynamic", lambda first, last: last["kappa_median"] > 0),
    ],
)
def test_every_policy_trains(args: TrainArguments, kappa: str, check: Callable[[dict, dict], bool]) -> None:  # type: ignore[type-arg]
    result = train(replace(args, kappa=kappa))
    assert check(*read_metrics(result.folder.path))


def test_stock_head_is_left_alone(args: TrainArguments) -> None:
    result = train(replace(args, head="linear"))
    assert type(result.model.fc) is torch.nn.Linear
    assert result.kappa is None
    assert "kappa_mean" not in read_metrics(result.folder.path)[0]


def test_preprocessing_is_recorded_in_the_model(args: TrainArguments) -> None:
    config = train(args).model.pretrained_cfg
    data = timm.data.resolve_data_config({}, pretrained_cfg=config)
    assert (data["input_size"], data["crop_pct"], data["interpolation"]) == ((1, 32, 32), 1.0, "bilinear")
    assert 0.4 < data["mean"][0] < 0.6


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16(
    args: TrainArguments, has_bf16: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "cpu_has_bf16", lambda: has_bf16)
    result = train(replace(args, mixed_precision="bf16", epochs=1, warmup_epochs=0))
    assert ("use --mixed-precision no on this machine" in caplog.text) != has_bf16
    assert all(parameter.dtype == torch.float32 for parameter in result.model.parameters())
    assert "forward" not in vars(result.model), "accelerate's wrapper is still on the model"


def test_the_precision_may_change_within_a_process(args: TrainArguments, tmp_path: Path) -> None:
    short = replace(args, epochs=1, warmup_epochs=0, limit_train=64)
    precisions = ("no", "bf16", "no")
    folders = [tmp_path / str(number) for number in range(3)]
    for precision, folder in zip(precisions, folders, strict=True):
        train(replace(short, mixed_precision=precision, output=str(folder)))
    first, half, again = (recorded(folder)[0]["train_loss"] for folder in folders)
    assert first == again != half


def test_trackers(args: TrainArguments) -> None:
    result = train(args)  # TensorBoard, if it is installed
    (events,) = (result.folder.path / "trackers").glob("events*")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged = EventAccumulator(str(events)).Reload()
    steps = [(event.step, pytest.approx(event.value)) for event in logged.Scalars("kappa_mean")]
    assert [(record["step"], record["kappa_mean"]) for record in read_metrics(result.folder.path)] == steps
    with pytest.raises(
        ValueError, match=r"tracker is 'nosuch', expected auto, none, or one that is installed: \['tensorb"
    ):
        train(replace(args, tracker="nosuch"))


@pytest.mark.slow
def test_trackio(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    run, place = tmp_path / "a-run", tmp_path / "trackio"
    flags = ["--smoke", "--tracker", "trackio", "--output", str(run)]
    run_python(str(ROOT / "scripts/train.py"), *flags, TRACKIO_DIR=str(place))
    with closing(sqlite3.connect(place / "cosify.db")) as base:
        rows = base.execute("select run_name, step, metrics from metrics order by step").fetchall()
        ((settings,),) = base.execute("select config from configs").fetchall()
    assert {name for name, _, _ in rows} == {"a-run"}
    expected = [(record["step"], record["kappa_mean"], record["kappa_low_edge"]) for record in read_metrics(run)]
    assert len(expected) == 10
    found = [(step, json.loads(numbers)) for _, step, numbers in rows]
    assert [(step, each["kappa_mean"], each["kappa_low_edge"]) for step, each in found] == expected
    assert json.loads(settings)["kappa"] == "ls"


def test_a_fixed_kappa_is_at_no_edge_of_the_grid(args: TrainArguments, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cosify"):
        result = train(replace(args, kappa="0.01", epochs=1, warmup_epochs=0))
    assert "edge" not in caplog.text
    assert "epoch 1/1  loss" in caplog.text
    (record,) = read_metrics(result.folder.path)
    assert (record["kappa_low_edge"], record["kappa_high_edge"]) == (None, None)
    assert result.kappa is not None
    assert result.kappa.high_edge is None
    figure = plot(result)
    assert figure.is_file()
    assert "edges" not in str([*summary(result, figure).columns[0].cells])


def test_image_folder(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", sizes=((6, 6), (9, 7)), per_class=8)
    result = train(
        TrainArguments(
            data=str(data),
            model_kwargs=["width=0.03125"],
            epochs=2,
            batch_size=8,
            output=str(tmp_path / "run"),
        )
    )
    assert result.label_names == ("cat", "dog")
    assert result.data.image_shape == (3, 32, 32), "images that differ take the model's size"
    assert result.data.pipeline == "workers"


@pytest.mark.slow
def test_cifar100(tmp_path: Path) -> None:
    if not CIFAR100.is_dir():
        pytest.skip(f"{CIFAR100} is not there")
    import datasets

    small = tmp_path / "data"
    small.mkdir()
    for split, num in (("train", 256), ("test", 64)):
        data = datasets.load_dataset("parquet", data_files=str(CIFAR100 / f"{split}.parquet"), split=f"train[:{num}]")
        data.to_parquet(str(small / f"{split}.parquet"))
    result = train(
        TrainArguments(
            data=str(small), model_kwargs=["width=0.0625"], epochs=2, batch_size=64, output=str(tmp_path / "run")
        )
    )
    first, last = read_metrics(result.folder.path)
    assert len(result.label_names) == 100
    assert last["train_loss"] < first["train_loss"] < 8
    assert 10 < first["kappa_mean"] < 60


def test_errors_come_with_what_to_do(args: TrainArguments) -> None:
    for changes, message in (
        ({"batch_size": 321}, "320 training samples do not fill one batch of 321 .* use --batch-size 320 or less"),
        ({"model": "resnet999"}, "unknown model 'resnet999'"),
        (
            {"model": "resnet10t", "model_kwargs": ["widht=2"]},
            "model 'resnet10t' cannot be built .*widht.* change --model-kw",
        ),
        ({"optimizer": "foo"}, "optimizer 'foo' cannot be built"),
        ({"data": "no/such/folder"}, "data 'no/such/folder' is no existing folder"),
    ):
        with pytest.raises(ValueError, match=message):
            train(replace(args, **changes))
    # None of these failed runs is in the way of the next one.
    train(replace(args, epochs=1, warmup_epochs=0))
    with pytest.raises(FileExistsError, match="holds an earlier run"):
        train(args)


@pytest.mark.slow  # tests/training/test_distributed.py has more such cases
def test_two_ranks_equal_one_with_the_doubled_batch(tmp_path: Path) -> None:
    found = {}
    for world_size in (1, 2):
        (tmp_path / str(world_size)).mkdir()
    ddp_worker.run(tmp_path / "1", batch_size=64)
    run_distributed("tests.training.ddp_worker", tmp_path / "2", 2, "32")
    for world_size in (1, 2):
        folder = tmp_path / str(world_size)
        found[world_size] = [torch.load(folder / f"rank{rank}.pt") for rank in range(world_size)]
        found[world_size].append(read_metrics(folder / "run"))
        assert len(found[world_size][-1]) == 4, "not each epoch was written once"
    (one, one_records), (first, second, two_records) = found[1], found[2]
    assert first["evaluation"] == second["evaluation"], "ranks disagree"
    assert first["kappa"] == second["kappa"]
    for name in ("train_loss", "kappa_mean", "mean_angle_deg"):
        for epoch in range(4):
            assert two_records[epoch][name] == pytest.approx(one_records[epoch][name], rel=1e-5), (name, epoch)
    assert sum(two_records[3]["kappa_histogram"]) == sum(one_records[3]["kappa_histogram"]) == 320
    assert first["evaluation"]["num_samples"] == 100
    for name, value in first["state"].items():
        torch.testing.assert_close(second["state"][name], value, rtol=0, atol=0, msg=f"{name} differs between ranks")
        if not name.startswith("fc.") or name == "fc.weight":  # running means see one rank's batches
            torch.testing.assert_close(value, one["state"][name], rtol=1e-3, atol=1e-5)
