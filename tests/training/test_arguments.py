"""Flags and YAML: what is read, what is refused, with which words."""

from dataclasses import fields
from pathlib import Path

import pytest

from cosify.training import TrainArguments, parse_arguments
from cosify.training.model import SMALL_MODEL, ModelChoice, default_image_size, parse_model_kwargs


def yaml(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_info:
        parse_arguments(arguments)
    assert exit_info.value.code == 2
    return capsys.readouterr().err


def test_every_field_is_explained_and_there_are_few() -> None:
    assert len(fields(TrainArguments)) <= 25
    for field in fields(TrainArguments):
        assert "Default" in field.metadata["help"], field.name


def test_help_is_printed_with_the_scripts_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"], description="first line\n\n    a command\n")
    printed = capsys.readouterr().out
    assert "\n    a command\n" in printed
    assert "--config" in printed


def test_flags() -> None:
    args = parse_arguments(
        ["--model-kwargs", "width=0.25", "depth=3", "--kappa", "20", "--image-size", "16", "--smoke"]
    )
    assert args == TrainArguments(model_kwargs=["width=0.25", "depth=3"], kappa="20", image_size=16, smoke=True)
    assert args.kappa_policy == 20.0
    assert TrainArguments().kappa_policy == "ls"


def test_yaml_and_flags_that_win(tmp_path: Path) -> None:
    path = yaml(
        tmp_path,
        "epochs: 7\nweight_decay: 1e-4\nlr: 1\nkappa: 20\nmixed_precision: no\n"
        "model_kwargs: {width: 0.25}\nsmoke: true\n",
    )
    args = parse_arguments(["--config", path, "--lr", "0.5"])
    assert args == TrainArguments(
        epochs=7, weight_decay=1e-4, lr=0.5, kappa="20", mixed_precision="no", model_kwargs=["width=0.25"], smoke=True
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kapa", "3"], "unknown flags ['--kapa', '3'], expected those listed by --help; did you mean kappa?"),
        (
            ["--epoch", "3"],
            "unknown flags ['--epoch', '3']",
        ),  # no abbreviations: a later flag would change their meaning
        (["--epochs", "x"], "argument --epochs: invalid int value: 'x'"),
        (["--epochs", "0", "--warmup-epochs", "0"], "epochs is 0, expected at least 1; change --epochs"),
        (["--batch-size", "0"], "batch_size is 0, expected at least 1; change --batch-size"),
        (["--image-size", "0"], "image_size is 0, expected at least 1, or nothing"),
        (["--lr", "0"], "lr is 0.0, expected a number above 0"),
        (["--lr", "nan"], "lr is nan, expected a number above 0"),
        (["--weight-decay", "-1"], "weight_decay is -1.0, expected a number from 0 on"),
        (["--epochs", "2", "--warmup-epochs", "2"], "warmup_epochs is 2.0, expected less than epochs (2)"),
        (["--seed", "-1"], "seed is -1, expected a whole number from 0 on"),
        (["--kappa", "foo"], "unknown kappa policy 'foo', expected a number above 0 or one of ['adacos'"),
        (["--kappa", "-2"], "kappa is -2.0, expected a finite number above 0"),
        (["--kappa", "5", "--head", "linear"], "kappa is '5' with head linear, which has no kappa; use head cos or"),
        (["--smoke", "--data", "x"], "smoke trains on synthetic images, but data is 'x'; drop one of them"),
        (["--mixed-precision", "fp8"], "argument --mixed_precision"),
        (["--config", "/no/such.yaml"], "No such file or directory: '/no/such.yaml'"),
    ],
)
def test_wrong_flags(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert message in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3\n", "unknown key 'epoch' in {path}, expected fields of the command line; did you mean epochs?"),
        ("config: x\n", "unknown key 'config' in {path}"),
        ("epochs: many\n", "epochs in {path} is 'many', expected int; see --help"),
        ("epochs: 1.5\n", "epochs in {path} is 1.5, expected int"),
        ("lr: [1]\n", "lr in {path} is [1], expected float"),
        ("smoke: 1\n", "smoke in {path} is 1, expected bool"),
        ("kappa: true\n", "kappa in {path} is 'True', expected str"),
        ("- epochs\n", "{path} holds list, expected key: value lines"),
        ("head: sine\n", "head is 'sine', expected one of"),
    ],
)
def test_wrong_yaml(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str) -> None:
    path = yaml(tmp_path, text)
    assert message.format(path=path) in refused(capsys, "--config", path)


def test_model_choice_depends_on_the_data() -> None:
    digits = ModelChoice.of(TrainArguments())
    assert (digits.name, digits.image_size, digits.kwargs["channels"]) == (SMALL_MODEL, 32, [16, 32, 64, 128])
    other = ModelChoice.of(TrainArguments(data="x", model_kwargs=["width=0.25"]))
    assert other == ModelChoice("resnet18_cifar", {"width": 0.25}, None)
    chosen = ModelChoice.of(TrainArguments(model="resnet18_cifar", image_size=9))
    assert chosen == ModelChoice("resnet18_cifar", {}, 9)


def test_model_kwargs() -> None:
    assert parse_model_kwargs(["a=1", "b=(1, 2)", "c=gelu", "d=x=y"]) == {"a": 1, "b": (1, 2), "c": "gelu", "d": "x=y"}
    with pytest.raises(
        ValueError, match=r"model argument 'width' does not read key=value, expected for example width=0.25"
    ):
        parse_model_kwargs(["width"])


def test_default_image_size() -> None:
    assert default_image_size("resnet18_cifar") == 32
    assert default_image_size("resnet50") == 224
    with pytest.raises(ValueError, match=r"unknown model 'resnet999_x', expected a name of timm.list_models\(\)"):
        default_image_size("resnet999_x")
