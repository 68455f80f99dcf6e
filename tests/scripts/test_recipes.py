"""scripts/recipes/*.yaml without their data: header, keys, commands, network, transform and schedule of each."""

import re
import shlex
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from torch import nn

from cosify.console import parse_arguments
from cosify.data import Preprocessing, num_train_batches, train_transform
from cosify.models import convert, find_heads
from cosify.models.lite0 import LITE0
from cosify.models.stage_freezing import freeze_stages, stages
from cosify.settings.training import kappa_policy
from cosify.training import CosifyArguments, FinetuneArguments, RunArguments, TrainArguments
from cosify.training.fine_tuning import blocks_of
from cosify.training.model import ModelChoice, build_model, preprocessing_of
from cosify.training.objective import Objective
from cosify.training.optimizer import make_optimizer, make_schedule
from scripts.compare import CompareArguments
from tests.processes import ROOT

KINDS = {"train.py": TrainArguments, "finetune.py": FinetuneArguments, "adapt.py": CosifyArguments}
RECIPES = sorted((ROOT / "scripts" / "recipes").glob("*.yaml"))
# Without the tables of the paper below, a glob that finds nothing would pass.
EXPECTED = {
    "table1_2_imagenet", "table2_cifar10", "table2_cifar100", "table2_food101", "table4_finetune",
    "table4_linear_probe", "table5_cosify", "table6_faces", "table7_imagenet_lt", "table7_inat2018",
    "table7_places_lt",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A data set: classes, training images, and channels, height and width that reach the network by default."""

    num_classes: int
    num_train: int
    shape: tuple[int, int, int] = (3, 224, 224)


TASKS = {
    "digits": Task(10, 1200, (1, 32, 32)),
    "two-digits": Task(100, 8000, (1, 8, 16)),
    "uoft-cs/cifar10": Task(10, 50_000, (3, 32, 32)),
    "uoft-cs/cifar100": Task(100, 50_000, (3, 32, 32)),
    "ethz/food101": Task(101, 75_750),
    "ILSVRC/imagenet-1k": Task(1000, 1_281_167),
    "./data/cub200": Task(200, 5994),
    "./data/cars": Task(196, 8144),
    "./data/aircraft": Task(100, 6667),
    "./data/sun397": Task(397, 19_850),
    "./data/dtd": Task(47, 3760),
    "./data/flowers": Task(102, 2040),
    "./data/tiny_imagenet": Task(200, 48_000, (3, 64, 64)),
    "./data/omniglot:train": Task(964, 15_424, (1, 28, 28)),
    "./runs/faces/celeba": Task(281, 5443, (3, 112, 112)),
    "./runs/tiny/tiny150": Task(150, 36_000, (3, 64, 64)),
    "./data/ms1mv3": Task(93_431, 5_179_510, (3, 112, 112)),
    "./lists/ImageNet_LT@./data/imagenet": Task(1000, 115_846),
    "./lists/Places_LT@./data/places": Task(365, 62_500),
    "./lists/iNaturalist18@./data/inat2018": Task(8142, 437_513),
}


@dataclass(frozen=True)
class Header:
    """What the comment above a recipe says: its script, command lines, and flags that give the table's other rows."""

    path: Path
    script: str
    commands: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, ...], ...]
    model: str | None

    @classmethod
    def read(cls, path: Path) -> "Header":
        lines = [line[1:] for line in path.read_text().splitlines() if line.startswith("#")]
        text = "\n".join(lines).replace("\\\n", " ")
        script = " and ".join(re.findall(r"^ script: (\S+)$", text, re.MULTILINE))
        indented = [line.strip() for line in text.splitlines() if line.startswith("   ")]
        rows = [line.split("  ")[0] for line in indented if line.startswith("--")]
        commands = [line for line in indented if not line.startswith("--")]
        models = re.findall(r"^ model: (\S+)$", text, re.MULTILINE)
        words = [tuple(tuple(shlex.split(line)) for line in each) for each in (commands, rows)]
        return cls(path, script, *words, models[0] if models else None)

    @property
    def kind(self) -> Any:
        return KINDS[self.script]

    def parse(self, *flags: str) -> Any:
        return parse_arguments(self.kind, ["--config", str(self.path), *flags])

    @property
    def variants(self) -> list[Any]:
        """Return the settings of the recipe and of each row."""
        return [self.parse(), *(self.parse(*row) for row in self.rows)]


def split_command(command: tuple[str, ...]) -> tuple[int, str, list[str]]:
    """Return the number of processes, the script and its flags."""
    if command[0] == "cosify":
        return 1, f"scripts/{command[1]}.py", list(command[2:])
    (place,) = [index for index, word in enumerate(command) if word.startswith("scripts/") and word.endswith(".py")]
    launcher = command[:place]
    if launcher == ("python",):
        return 1, command[place], list(command[place + 1 :])
    assert launcher[:4] == ("accelerate", "launch", "--multi_gpu", "--num_processes")
    return int(launcher[4]), command[place], list(command[place + 1 :])


def network_name(header: Header, args: Any) -> str:
    """Return the timm name of the network of a recipe that starts from a pretrained one."""
    name = args.model if args.model not in ("", "RUN") else header.model
    assert name is not None, "a model that the user names needs a line '# model: NAME' in the header"
    return "tf_efficientnet_lite0" if name == LITE0 else name


def preprocessing(header: Header, args: Any) -> Preprocessing:
    if isinstance(args, TrainArguments):
        return preprocessing_of(ModelChoice.of(args), pretrained=args.pretrained)
    config = timm.get_pretrained_cfg(network_name(header, args))
    return Preprocessing.of_model(config, args.image_size, pretrained=True)


def image_shape(args: Any) -> tuple[int, int, int]:
    shape = TASKS[args.data].shape
    return shape if args.image_size is None else (shape[0], args.image_size, args.image_size)


HEADERS = [pytest.param(Header.read(path), id=path.stem) for path in RECIPES]
each_recipe = pytest.mark.parametrize("header", HEADERS)


def test_every_experiment_has_a_recipe_of_its_own() -> None:
    assert {path.stem for path in RECIPES} >= EXPECTED
    assert len(RECIPES) >= 18
    settings = [(Header.read(path).script, yaml.safe_load(path.read_text())) for path in RECIPES]
    assert all(settings.count(each) == 1 for each in settings), "two recipes are the same"


@each_recipe
def test_header_names_a_script_and_commands_that_run_this_file(header: Header) -> None:
    assert header.script in KINDS
    scripts = []
    for command in header.commands:
        _, script, flags = split_command(command)
        assert (ROOT / script).is_file()
        assert flags[0] == "--config"
        assert (ROOT / flags[1]) == header.path
        assert script != "scripts/compare.py" or "--output" in flags, "compare.py would go on with another table"
        scripts.append(script)
    assert scripts[0] == f"scripts/{header.script}"
    text = header.path.read_text()
    assert re.match(r"# .*(Table|Tables) \d", text), "the first line does not say which table it is for"
    assert "[ours]" in text or header.path.stem not in EXPECTED
    assert max(map(len, text.splitlines())) <= 120


@each_recipe
def test_commands_and_rows_parse_and_agree_on_the_images_of_a_step(
    header: Header, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    per_step = set()
    for command in header.commands:
        processes, script, flags = split_command(command)
        if script == "scripts/compare.py":
            compared = parse_arguments(CompareArguments, flags)
            assert compared.config == flags[1]
            continue
        args = parse_arguments(KINDS[Path(script).name], flags)
        assert args.data in TASKS
        per_step.add(processes * args.batch_size * args.accumulate)
    assert len(per_step) == 1
    recipe, *rows = header.variants
    assert recipe not in rows, "a row changes nothing"
    assert all(rows.count(row) == 1 for row in rows)


@each_recipe
def test_keys_are_the_scripts_and_differ_from_its_defaults(
    header: Header, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(header.path.read_text())
    assert content["data"] in TASKS
    assert len(content) <= 12
    args = header.parse()
    for entry in fields(header.kind):
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        if entry.name in content and entry.name != "data":
            assert getattr(args, entry.name) != default, f"{entry.name} is the default already"
        elif entry.name != "data":
            assert getattr(args, entry.name) == default
    copy = tmp_path / header.path.name
    copy.write_text(header.path.read_text() + "epoch: 3\n")
    with pytest.raises(SystemExit):
        parse_arguments(header.kind, ["--config", str(copy)])
    assert f"unknown key 'epoch' in {copy}, expected flags or recipe keys" in capsys.readouterr().err


@pytest.mark.slow
@each_recipe
def test_network_gives_logits_of_its_classes(header: Header) -> None:
    args = header.parse()
    num_classes, shape = TASKS[args.data].num_classes, image_shape(args)
    with torch.device("meta"):
        if isinstance(args, TrainArguments):
            choice = ModelChoice.of(args)
            model = build_model(choice, replace(args, pretrained=False), num_classes, shape[0], shape[1:])
            assert choice.image_size in (None, shape[1])
        else:
            model = timm.create_model(network_name(header, args), num_classes=num_classes)
            if isinstance(args, CosifyArguments) or args.head == "cos":
                convert(model, kappa=kappa_policy(args.kappa))
            freeze_stages(model, blocks_of(args.blocks))
        heads = list(find_heads(model).values())
        assert len(heads) == (0 if getattr(args, "head", "cos") == "linear" else 1)
        assert all(head.kappa_spec == kappa_policy(args.kappa) for head in heads)
        Objective(model, args, None)  # a margin needs a network that gives its embedding
        assert model.eval()(torch.empty(2, *shape)).shape == (2, num_classes)


@pytest.mark.parametrize("header", [each for each in HEADERS if each.values[0].script != "train.py"])
def test_rows_train_the_blocks_that_they_name(header: Header) -> None:
    args = header.parse()
    with torch.device("meta"):
        model = timm.create_model(network_name(header, args), num_classes=TASKS[args.data].num_classes)
    groups = stages(model)
    for variant in header.variants:
        freeze_stages(model, blocks_of(variant.blocks))
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        free = {"all": len(groups), "head": 0}.get(variant.blocks, blocks_of(variant.blocks))
        for index, names in enumerate(groups):
            assert trained.issuperset(names) if index >= len(groups) - free else trained.isdisjoint(names)
        assert {f"{model.default_cfg['classifier']}.{name}" for name in ("weight", "bias")} <= trained


def test_linear_probe_trains_the_classifier_alone_and_table_5_one_to_four_blocks() -> None:
    assert Header.read(RECIPES[0].with_name("table4_linear_probe.yaml")).parse().blocks == "head"
    variants = Header.read(RECIPES[0].with_name("table5_cosify.yaml")).variants
    expected = [(kappa, blocks) for kappa in ("10", "60") for blocks in ("all", "3", "2", "1")]
    assert [(args.kappa, args.blocks) for args in variants] == expected


def with_timms_transform(header: Header) -> bool:
    content = yaml.safe_load(header.path.read_text())
    return content.get("augment") == "timm" or "transform" in content


@pytest.mark.parametrize("header", [each for each in HEADERS if with_timms_transform(each.values[0])])
def test_transform_gives_the_shape_that_the_network_takes(header: Header) -> None:
    args = header.parse()
    shape, expected = image_shape(args), preprocessing(header, args)
    assert shape[1] in (expected.fallback_size, 112), "images of one size of at most 128 keep it, others get this one"
    transform = train_transform("timm", args.transform, shape, expected)
    random = np.random.default_rng(0).integers(256, size=(150, 200, 3), dtype=np.uint8)
    pixels = np.asarray(transform(Image.fromarray(random)))
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8


def test_resident_pipeline_is_for_small_images_alone() -> None:
    recipes = [each.values[0].parse() for each in HEADERS]
    others = [args for args in recipes if args.augment == "auto" and not args.transform]
    assert len(others) >= 7
    assert all(max(image_shape(args)[1:]) <= 128 for args in others)


def test_faces_are_whole_mirrored_or_not() -> None:
    header = Header.read(RECIPES[0].with_name("table6_faces.yaml"))
    args = header.parse()
    transform = train_transform(args.augment, args.transform, image_shape(args), preprocessing(header, args))
    face = np.random.default_rng(0).integers(256, size=(112, 112, 3), dtype=np.uint8)
    seen = {np.asarray(transform(Image.fromarray(face))).tobytes() for _ in range(20)}
    planes = face.transpose(2, 0, 1)
    assert seen == {planes.tobytes(), planes[..., ::-1].tobytes()}


@each_recipe
def test_learning_rate_rises_to_its_peak_and_falls_to_its_end(header: Header) -> None:
    processes, _, _ = split_command(header.commands[0])
    args: RunArguments = header.parse()
    per_step = args.batch_size * args.accumulate
    steps = num_train_batches(TASKS[args.data].num_train, per_step, processes)
    assert steps == TASKS[args.data].num_train // (per_step * processes) >= 7
    total, warmup = args.epochs * steps, round(args.warmup * steps)
    optimizer = make_optimizer(replace(args, head_lr=1.0), nn.Linear(2, 2))  # which nn.Linear alone does not say
    schedule = make_schedule(args, optimizer, steps)

    def rate(step: int) -> float:
        if step > 0:
            schedule.step_update(step)
        return float(optimizer.param_groups[0]["lr"])

    rising = [rate(step) for step in (0, warmup // 2, max(warmup - 1, 0))]
    assert rising == sorted(rising)
    assert rising[0] == pytest.approx(args.lr / max(warmup, 1))
    assert rising[-1] == pytest.approx(args.lr, rel=0.1)
    assert rising[-1] <= args.lr * (1 + 1e-9)
    falling = [rate(step) for step in (warmup, (warmup + total) // 2, total - 1, total)]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] >= 0.7 * args.lr, "the warm-up takes so long that the course begins far below the peak"
    assert args.min_lr <= falling[-2] < 0.01 * args.lr
    assert falling[-1] == pytest.approx(args.min_lr, abs=1e-12)


def test_every_column_of_fine_tuning_takes_about_five_thousand_steps() -> None:
    variants = Header.read(RECIPES[0].with_name("table4_finetune.yaml")).variants
    assert len({args.data for args in variants}) == 7
    for args in variants:
        total = args.epochs * num_train_batches(TASKS[args.data].num_train, args.batch_size)
        assert total == pytest.approx(5000, rel=0.06), args.data
