"""Flags and YAML: what is read, what is refused, with which words."""

import json
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from cosify.commands.train import COMMAND as TRAIN
from cosify.console import parse_arguments
from cosify.settings import command_line, is_key, resolved
from cosify.settings.evaluation import EvaluateArguments
from cosify.settings.training import kappa_policy
from cosify.training import CosifyArguments, FinetuneArguments, RunFolder, TrainArguments
from cosify.training.model import SMALL_MODEL, ModelChoice, parse_model_kwargs, preprocessing_of
from cosify.training.resumed import as_begun


def yaml(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_info:
        parse_arguments(TrainArguments, arguments, words=("data",))
    assert exit_info.value.code == 2
    return capsys.readouterr().err


def test_every_field_is_explained_and_there_are_few() -> None:
    for kind in (TrainArguments, FinetuneArguments, CosifyArguments):
        flags = [field for field in fields(kind) if not is_key(field)]
        assert len(flags) + len(["config", "set"]) <= 25, kind
        for field in fields(kind):
            assert "help" in field.metadata, field.name
        assert all("Default" in field.metadata["help"] or "Needed" in field.metadata["help"] for field in flags)


def test_flags() -> None:
    args = parse_arguments(
        TrainArguments, ["--model-kwargs", "width=0.25", "depth=3", "--kappa", "20", "--image-size", "16", "--smoke"]
    )
    assert args == TrainArguments(model_kwargs=["width=0.25", "depth=3"], kappa="20", image_size=16, smoke=True)
    assert kappa_policy(args.kappa) == 20.0
    assert kappa_policy(TrainArguments().kappa) == "ls"


def test_yaml_and_flags_that_win(tmp_path: Path) -> None:
    path = yaml(
        tmp_path,
        "epochs: 7\n"
        "mixup: 0.2\ntransform: {auto_augment: rand-m9}\ndecay_milestones: [3, 5]\nema_decay: null\n"
        "weight_decay: 1e-4\nlr: 1\nkappa: 20\nmixed_precision: no\n"
        "model_kwargs: {width: 0.25}\nsmoke: true\n",
    )
    args = parse_arguments(TrainArguments, ["--config", path, "--lr", "0.5"])
    assert args == TrainArguments(
        mixup=0.2,
        transform={"auto_augment": "rand-m9"},
        decay_milestones=[3, 5],
        epochs=7,
        weight_decay=1e-4,
        lr=0.5,
        kappa="20",
        mixed_precision="no",
        model_kwargs=["width=0.25"],
        smoke=True,
    )


def test_yaml_text_stays_as_it_was_typed(tmp_path: Path) -> None:
    path = yaml(
        tmp_path,
        "data: 0123\noutput: 2024-05-01\nimage_column: 1_0\nlabel_column: 0x1F\nkappa: 20.50\nmodel: null\n"
        "model_kwargs: [010]\nepochs: 012\nbatch_size: 0x10\nlr: 010\n",
    )
    args = parse_arguments(TrainArguments, ["--config", path, "--set", "num_workers=010"])
    found = (args.data, args.output, args.image_column, args.label_column, args.kappa, args.model, args.model_kwargs)
    assert found == ("0123", "2024-05-01", "1_0", "0x1F", "20.50", None, ["010"])
    assert (args.epochs, args.batch_size, args.lr, args.num_workers) == (12, 16, 10.0, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "transform={scale: 1, scale: 2}"], "with the key 'scale' twice, in lines 1 and 1, expected each"),
        (["--kapa", "3"], "unknown flag --kapa, expected one of --help-all; did you mean --kappa?"),
        (
            ["--epoch", "3"],
            "unknown flag --epoch, expected one of --help-all; did you mean --epochs?",
        ),  # no abbreviations: a later flag would change their meaning
        (["--epochs", "x"], "argument --epochs: invalid int value: 'x'"),
        (["--epochs", "0", "--set", "warmup_epochs=0"], "epochs is 0, expected at least 1; change --epochs"),
        (["--batch-size", "0"], "batch_size is 0, expected at least 1; change --batch-size"),
        (["--image-size", "0"], "image_size is 0, expected at least 1, or nothing"),
        (["--lr", "0"], "lr is 0.0, expected a number above 0"),
        (["--lr", "nan"], "lr is nan, expected a number above 0"),
        (
            ["--resume", "x", "--lr", "1"],
            "resume takes every setting from the run's config.json, but ['--lr'] came too",
        ),
        (["--weight-decay", "-1"], "weight_decay is -1.0, expected a number from 0 on"),
        (
            ["--epochs", "2", "--set", "warmup_epochs=2"],
            "warmup_epochs is 2.0, expected 0 to epochs (2); change warmup",
        ),
        (
            ["--set", "smoothing=0.1"],
            "--set has 'smoothing', expected a key that --help-all lists; did you mean label_",
        ),
        (["--warmup-epochs", "1"], "expected one of --help-all; did you mean --set warmup_epochs=VALUE?"),
        (["--warmup", "1"], "expected one of --help-all; did you mean --set warmup_epochs=VALUE?"),
        (["--learning-rate", "0.1"], "unknown flag --learning-rate, expected one of --help-all; did you mean --lr?"),
        (["a", "b"], "the words ['a', 'b'] came, expected DATA; see --help"),
        (["--set", "mixup"], "--set has 'mixup', expected key=value"),
        (["--set", "lr=1"], "--set has 'lr', which is a flag, expected a key of a recipe; write --lr 1"),
        (["--set", "wait_minutes=.inf"], "wait_minutes is inf, expected a number above 0 and below infinity"),
        (["--lr", "inf"], "lr is inf, expected a number above 0 and below infinity"),
        ([""], "data is empty, expected text; drop it, or look at the shell variable"),
        (["--output", ""], "output is empty, expected text"),
        (["--set", "mixup=a"], "mixup in --set is 'a', expected float"),
        (["--set", "label_smoothing=1"], "label_smoothing is 1.0, expected a share in [0, 1)"),
        (["--set", "schedule=exp"], "schedule is 'exp', expected one of ('cosine'"),
        (["--set", "schedule=multistep"], "decay_milestones is [], expected epochs, such as [160, 180]"),
        *(
            (
                ["--set", "schedule=multistep", f"decay_milestones={wrong}"],
                f"decay_milestones is {wrong}, expected epochs, such as [160, 180], above 0 and ascending; change",
            )
            for wrong in ([180, 160], [160, 160], [0, 10])
        ),
        (
            ["--epochs", "10", "--set", "mixup=0.2", "mix_off_epochs=10"],
            "mix_off_epochs is 10, expected below epochs (10), or mixup and cutmix are never on; change mix_off_epochs",
        ),
        (
            ["--set", "transform={autoaugment: x}"],
            "transform has ['autoaugment'], expected arguments of timm.data.create",
        ),
        (
            ["--set", "mixup=0.2", "cosine_margin=0.3"],
            "mixup is 0.2 and cutmix 0.0 with a margin, which needs one label",
        ),
        (["--set", "mixup=0.2", "--batch-size", "3"], "batch_size is 3, expected an even number"),
        (["--set", "cosine_margin=0.3", "--head", "linear"], "a margin is set with head linear, which has no cosine"),
        (["--seed", "-1"], "seed is -1, expected a whole number from 0 to 4294967295; change"),
        (["--seed", "99999999999999999999999"], "seed is 99999999999999999999999, expected a whole number from 0 to"),
        (["--kappa", "foo"], "unknown kappa policy 'foo', expected a number above 0 or one of ['2ls', 'adacos'"),
        (["--kappa", "-2"], "kappa is -2.0, expected a finite number above 0"),
        (["--kappa", "5", "--head", "linear"], "kappa is '5' with head linear, which has no kappa; use head cos or"),
        (["--smoke", "--data", "x"], "smoke trains on synthetic images, but data is 'x'; drop one of them"),
        (["--mixed-precision", "fp8"], "argument --mixed-precision"),
        (
            ["--set", "transform={a"],
            "--set has 'transform={a', which cannot be read as YAML (while parsing a flow mapping",
        ),
        (["--config", "/no/such.yaml"], "/no/such.yaml does not exist, expected a recipe of settings"),
    ],
)
def test_wrong_flags(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert message in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3\n", "unknown key 'epoch' in {path}, expected flags or recipe keys; did you mean epochs?"),
        ("config: x\n", "unknown key 'config' in {path}"),
        ("epochs: many\n", "epochs in {path} is 'many', expected int; see --help-all"),
        ("epochs: 1.5\n", "epochs in {path} is 1.5, expected int"),
        ("lr: [1]\n", "lr in {path} is [1], expected float"),
        ("smoke: 1\n", "smoke in {path} is 1, expected bool"),
        ("kappa: true\n", "kappa in {path} is True, expected str; put text in quotes, or see --help-all"),
        ("lr: 0.1\nepochs: 3\nlr: 0.2\n", "{path} has the key 'lr' twice, in lines 1 and 3, expected each key once"),
        ("transform: {scale: 1, scale: 2}\n", "{path} has the key 'scale' twice, in lines 1 and 1, expected each"),
        ("epochs: 1:30\n", "epochs in {path} is '1:30', expected int"),
        ("output: ''\n", "output is empty, expected text"),
        ("data: [a]\n", "data in {path} is ['a'], expected str"),
        ("decay_milestones: [1, b]\n", "an entry of decay_milestones in {path} is 'b', expected int"),
        ("schedule: [step]\n", "schedule in {path} is ['step'], expected one of cosine, step,"),
        ("resume: runs/a\n", "resume stands in {path}, expected it alone; write --resume runs/a"),
        ("- epochs\n", "{path} holds list, expected key: value lines"),
        ("head: sine\n", "head is 'sine', expected one of"),
        ("", "{path} holds no settings, expected key: value lines such as 'epochs: 30'"),
        ("# epochs: 3\n", "{path} holds no settings"),
        ("epochs: [3\n", "{path} cannot be read as YAML (while parsing a flow sequence"),
        ("a: b: c\n", "{path} cannot be read as YAML (mapping values are not allowed here"),
        (
            "learning_rate: 0.1\n",
            "unknown key 'learning_rate' in {path}, expected flags or recipe keys; did you mean lr?",
        ),
        ("Learning-Rate: 0.1\n", "did you mean lr?"),
        ("per_device_train_batch_size: 8\n", "did you mean batch_size?"),
        ("num_train_epochs: 8\n", "did you mean epochs?"),
        ("wd: 8\n", "did you mean weight_decay?"),
        ("bogus_thing_else: 8\n", "check the spelling"),
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
    with pytest.raises(ValueError, match=r"model argument 'width' is not key=value, expected for example width=0.25"):
        parse_model_kwargs(["width"])


def test_what_a_model_expects() -> None:
    small = preprocessing_of(ModelChoice("resnet18_cifar", {}, None), pretrained=False)
    assert (small.image_size, small.fallback_size, small.mean, small.crop_pct) == (None, 32, None, 1.0)
    large = preprocessing_of(ModelChoice("resnet50", {}, 96), pretrained=True)
    assert (large.image_size, large.fallback_size, large.mean) == (96, 224, (0.485, 0.456, 0.406))
    assert (large.interpolation, large.crop_pct) == ("bicubic", 0.95)
    with pytest.raises(ValueError, match=r"unknown model 'resnet999_x', expected a name of timm.list_models\(\)"):
        preprocessing_of(ModelChoice("resnet999_x", {}, None), pretrained=False)


def test_resume_takes_the_settings_of_the_run(tmp_path: Path) -> None:
    args = TrainArguments(lr=0.3, transform={"hflip": 0.0}, kappa="20", overwrite=True, output="elsewhere")
    config = {"script": "TrainArguments", "arguments": resolved(args), "world_size": 1}
    run = RunFolder.create(tmp_path / "run", config).path
    expected = replace(args, overwrite=False, output=None, resume=str(run))
    assert as_begun(parse_arguments(TrainArguments, ["--resume", str(run)])) == expected
    with pytest.raises(ValueError, match="with TrainArguments, expected FinetuneArguments; resume it with the command"):
        as_begun(FinetuneArguments(resume=str(run)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": "x"}, "epochs in .*config.json is 'x', expected int"),
        ([1], "arguments in .*config.json is no mapping"),
        ({"epochs": 0, "warmup_epochs": 0.0}, "epochs is 0, expected at least 1"),
    ],
)
def test_a_damaged_config_of_a_run_is_named(arguments: Any, message: str, tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {"script": "TrainArguments", "arguments": arguments, "world_size": 1})
    with pytest.raises(ValueError, match=message):
        as_begun(TrainArguments(resume=str(tmp_path / "run")))


def test_a_run_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="nowhere is no run folder"):
        TRAIN.run(["--resume", str(tmp_path / "nowhere")])


@pytest.mark.parametrize("blocks", ["some", "0", "-1", "1.5", "²"])
def test_wrong_blocks(blocks: str) -> None:
    with pytest.raises(ValueError, match=f"blocks is '{blocks}', expected all, head, or a number of stages"):
        FinetuneArguments(blocks=blocks)


def test_the_command_of_an_evaluation_gives_its_settings_again() -> None:
    args = EvaluateArguments(ood=["a:test", "b c"], exclude_classes=[3, 5], limit=7, calibrate=True, id_subset="all")
    command = shlex.split(command_line(["cosify", "evaluate"], EvaluateArguments, resolved(args)))
    assert parse_arguments(EvaluateArguments, command[2:]) == args


@pytest.mark.parametrize(
    "args",
    [
        TrainArguments(),
        TrainArguments(data="a folder", model_kwargs=["width=0.5", "layers=(1, 1)"], lr=1e-3, kappa="19.4", epochs=7),
        TrainArguments(pretrained=True, head="linear", decay_milestones=[3, 5], transform={"hflip": 0.5}),
        FinetuneArguments(model="hf-hub:ORG/NAME", blocks="2", head="cos", ema_decay=0.99, balance="loss"),
        CosifyArguments(model="m", image_size=64, max_drop=1.0),
        CosifyArguments(model="m", freeze_norms=False, head_start="none"),
    ],
)
def test_the_command_of_a_run_gives_its_settings_again(args: TrainArguments) -> None:
    words = ("model", "data")
    command = shlex.split(command_line(["cosify", "x"], type(args), resolved(args), words))
    assert command[:2] == ["cosify", "x"]
    assert parse_arguments(type(args), command[2:], words=words) == args
    if isinstance(args, CosifyArguments):  # older code had other defaults
        assert f"freeze_norms={json.dumps(args.freeze_norms)}" in command
