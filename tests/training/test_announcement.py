"""What a run says before it begins, and when nothing came of it."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cosify.heads.kappa_statistics import KappaSummary
from cosify.training import Evaluation, FinetuneArguments, TrainArguments, finetune, train
from cosify.training.announcement import warn_of_bad_start, warn_of_chance
from cosify.training.run_folder import read_metrics
from tests.processes import run_python


def folder_of_images(folder: Path, side: int = 12, num: int = 8) -> Path:
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            place = folder / part / name
            place.mkdir(parents=True)
            for index in range(num):
                pixels = generator.integers(0, 255, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


def test_a_run_says_what_it_will_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, output = folder_of_images(tmp_path / "data"), tmp_path / "run"
    with caplog.at_level(logging.INFO, "cosify"):
        small = {"model": "test_resnet", "image_size": 32, "epochs": 2, "batch_size": 8}
        train(TrainArguments(data=str(data), kappa="20", output=str(output), **small))
    (block,) = (message for message in caplog.messages if message.startswith("data "))
    rows = dict(line.split(maxsplit=1) for line in block.splitlines())
    assert rows["data"] == f"16 training and 16 test images of 2 classes ({data})"
    assert rows["images"].startswith("3 x 32 x 32 pixels, scaled from 12 x 12 (")
    assert "augmentation crop-flip; decoded once, kept on the device" in rows["images"]
    assert rows["network"].startswith("test_resnet, ")
    assert rows["network"].endswith(" parameters; cosine head, kappa 20")
    assert rows["device"] == "cpu, float32"
    assert rows["steps"] == "4: 2 epochs of 2, each of 8 images"
    assert rows["output"] == str(output)
    (advice,) = (message for message in caplog.messages if "steps are few" in message)
    assert advice.startswith("4 steps are few")
    assert advice.endswith(f"cosify finetune tf_efficientnet_lite0.cos_2ls_in1k_ft_tinyin200 {data} --head cos")


@pytest.mark.slow
def test_a_stream_is_trained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, output = folder_of_images(tmp_path / "data"), tmp_path / "run"
    small = {"model": "test_resnet", "image_size": 32, "epochs": 2, "batch_size": 8, "tracker": "none"}
    with caplog.at_level(logging.INFO, "cosify"):
        train(TrainArguments(data=str(data), output=str(output), streaming=True, num_train=16, num_workers=0, **small))
    assert f"16 training and streamed test images of 2 classes ({data})" in caplog.text
    assert len(read_metrics(output)) == 2
    assert read_metrics(output)[-1]["test_accuracy"] is not None


def test_a_resumed_run_says_of_its_images_what_it_knows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = folder_of_images(tmp_path / "data", side=32)
    small = {"model": "test_resnet", "epochs": 1, "batch_size": 8, "tracker": "none"}
    with caplog.at_level(logging.INFO, "cosify"):
        train(TrainArguments(data=str(data), image_size=32, output=str(tmp_path / "run"), **small))
        train(TrainArguments(resume=str(tmp_path / "run")))
        grey = TrainArguments(data=str(data), image_size=32, output=str(tmp_path / "grey"), **small)
        train(replace(grey, model_kwargs=["in_chans=1"]))
    lines = (line for message in caplog.messages for line in message.splitlines())
    first, again, without = (line for line in lines if line.startswith("images "))
    assert first.startswith("images   3 x 32 x 32 pixels, as they are; augmentation")
    assert again.startswith("images   3 x 32 x 32 pixels; augmentation")
    assert without.startswith("images   1 x 32 x 32 pixels, made grey; augmentation")


def test_a_run_that_replaces_another_names_the_folder_that_was_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = TrainArguments(epochs=1, limit_train=64, batch_size=32, output=str(tmp_path / "run"), overwrite=True)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO, "cosify"):
            train(args)
        (block,) = (message for message in caplog.messages if message.startswith("data "))
        assert block.endswith(f"output   {tmp_path / 'run'}")


def test_few_steps_of_a_trained_network(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = folder_of_images(tmp_path / "data")
    args = FinetuneArguments(model="resnet18_cifar.cos_60_cifar100", data=str(data), epochs=1, batch_size=16)
    finetune(replace(args, output=str(tmp_path / "run")))
    (advice,) = (message for message in caplog.messages if "steps are few" in message)
    assert advice == "1 steps are few; raise --epochs, or lower --batch-size"


def test_long_runs_and_the_built_in_set_are_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(TrainArguments(epochs=1, limit_train=64, batch_size=32, output=str(tmp_path)))
    assert not [message for message in caplog.messages if "steps are few" in message]


@pytest.mark.parametrize(
    ("right", "num", "num_classes", "warned"),
    [
        (0, 900, 10, True),
        (90, 900, 10, True),
        (105, 900, 10, True),  # guessing has as many right with a probability of 0.056
        (106, 900, 10, False),  # 0.045
        (810, 900, 10, False),
        (8, 8, 2, False),
        (7, 8, 2, False),  # 0.035
        (6, 8, 2, True),  # 0.145
        (2, 2, 2, False),  # 0.25, but no result is better
        (1, 2, 2, True),
    ],
)
def test_guessing_is_said(
    right: int, num: int, num_classes: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    accuracy, chance = 100 * right / num, 100 / num_classes
    warn_of_chance(Evaluation(right / num, 1.0, 50.0, num), num_classes, "DATA")
    assert bool(caplog.messages) == warned
    if warned:
        assert "no better than guessing" in caplog.text
        assert f"{accuracy:.1f} % of {num} test images are right, guessing gives {chance:.1f} %" in caplog.text


@pytest.mark.parametrize(
    ("loss", "settings", "warned"),
    [
        (14.8, {}, True),  # LFW, as scripts/ls_start.py finds it
        (10.8, {}, False),  # 1.25 times log C is 10.82
        (14.8, {"cosine_margin": 0.05}, True),  # 12.8 without the margin
        (14.8, {"cosine_margin": 0.35}, False),
        (14.8, {"label_smoothing": 0.1}, False),
    ],
)
def test_a_bad_start_is_said(
    loss: float, settings: dict[str, float], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kappa = KappaSummary(mean=41.0, median=40.0, p10=30.0, p90=50.0, low_edge=0.0, high_edge=0.0, histogram=())
    warn_of_bad_start(TrainArguments(**settings), loss, kappa, 5749)  # type: ignore[arg-type]
    assert bool(caplog.messages) == warned
    if warned:
        assert "far above that of guessing, log C = 8.7, because kappa* is 41" in caplog.text
        assert "--kappa 24" in caplog.text
        assert ("without its margin" in caplog.text) == ("cosine_margin" in settings)


def test_a_run_with_a_bad_start_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosify.training.announcement.BAD_START", 0.0)
    small = {"epochs": 2, "limit_train": 64, "batch_size": 32}
    for kappa in ("ls", "20"):
        train(TrainArguments(kappa=kappa, output=str(tmp_path / kappa), **small))  # type: ignore[arg-type]
    assert sum("begins badly" in message for message in caplog.messages) == 1


@pytest.mark.slow
def test_a_program_without_logging_sees_the_lines(tmp_path: Path) -> None:
    program = (
        "from cosify.training import TrainArguments, train;"
        f"train(TrainArguments(epochs=1, limit_train=64, batch_size=32, output={str(tmp_path / 'run')!r}));"
        "import logging; print(len(logging.getLogger('cosify').handlers))"
    )
    assert run_python("-c", program).strip() == "1"
