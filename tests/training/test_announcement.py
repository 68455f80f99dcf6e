"""What a run says before it begins, and when nothing came of it."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cosify.training import Evaluation, FinetuneArguments, TrainArguments, finetune, train
from cosify.training.announcement import warn_of_chance
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
    assert advice.endswith(f"cosify finetune resnet18_cifar.cos_60_cifar100 {data}")


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


@pytest.mark.parametrize(("accuracy", "warned"), [(0.1, True), (0.129, True), (0.131, False), (0.9, False)])
def test_guessing_is_said(accuracy: float, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    # Of 10 classes and 900 images a guess is right in 10 %, with a standard error of 1 %.
    warn_of_chance(Evaluation(accuracy, 1.0, 50.0, 900), 10, "DATA")
    assert bool(caplog.messages) == warned
    if warned:
        assert "no better than guessing" in caplog.text
        assert f"{100 * accuracy:.1f} % of 900 test images are right, guessing gives 10.0 %" in caplog.text


def test_a_program_without_logging_sees_the_lines(tmp_path: Path) -> None:
    program = (
        "from cosify.training import TrainArguments, train;"
        f"train(TrainArguments(epochs=1, limit_train=64, batch_size=32, output={str(tmp_path / 'run')!r}));"
        "import logging; print(len(logging.getLogger('cosify').handlers))"
    )
    assert run_python("-c", program).strip() == "1"
