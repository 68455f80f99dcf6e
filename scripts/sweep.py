"""Convert every classifier of timm and transformers to a cosine head, on the meta device, and write what happened.

    python scripts/sweep.py --models test_vit test_resnet ViTForImageClassification --output runs/sweep
    python scripts/sweep.py --output scripts/results

The first command takes seconds.  The second sweeps all of timm and transformers: tens of minutes on one core, without
weights or downloads.
"""

import fnmatch
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosify.errors import InputError
from cosify.files import write_whole
from cosify.settings import flag

if TYPE_CHECKING:
    from cosify.heads import CosineHead


@dataclass(frozen=True)
class SweepArguments:
    """Settings: what to sweep."""

    models: list[str] = flag(["*"], "Patterns of timm's architectures and transformers' classes. Default: all.")
    output: str = flag("runs/sweep", "Folder for sweep.jsonl and sweep.md.")


@dataclass(frozen=True)
class Row:
    """What happened to one architecture."""

    library: str
    architecture: str
    default_classes: int
    outcome: str  # "ok", "converted, not run", "refused" or "failed"
    heads: tuple[str, ...] = ()
    message: str = ""


def chosen(names: Iterable[str], patterns: list[str]) -> list[str]:
    """Return the names that a pattern matches."""
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def sweep_timm(patterns: list[str]) -> Iterator[Row]:
    """Build, convert, run and reset each timm architecture on the meta device."""
    import timm
    from rich.progress import track

    import cosify  # noqa: F401  # installs head="cos"

    for name in track(chosen(timm.list_models(), patterns), description="timm"):
        default = timm.get_pretrained_cfg(name)
        default_classes = _default_classes(name) if default is None else default.num_classes
        try:
            heads = _check_timm(name, {} if default_classes else {"num_classes": 10})
            yield Row("timm", name, default_classes, "ok", heads)
        except ValueError as error:
            refused = "is an encoder without a classifier" in str(error)
            yield Row("timm", name, default_classes, "refused" if refused else "failed", message=str(error))
        except Exception as error:  # a sweep reports whatever a model raises
            yield Row("timm", name, default_classes, "failed", message=f"{type(error).__name__}: {error}")


def _default_classes(name: str) -> int:
    import timm
    import torch

    with torch.device("meta"):
        return int(getattr(timm.create_model(name), "num_classes", 0))


def _check_timm(name: str, settings: dict[str, int]) -> tuple[str, ...]:
    import timm
    import torch

    from cosify import find_heads

    with torch.device("meta"):
        model = timm.create_model(name, head="cos", **settings).eval()
        heads = find_heads(model)
        assert heads, "no cosine head after create_model(head='cos')"
        with _every_head_called(heads):
            logits = model(torch.empty(2, *model.pretrained_cfg["input_size"]))
        _expect_logits(logits[0] if isinstance(logits, tuple) else logits, model.num_classes)
        model.reset_classifier(7)
        again = find_heads(model)
        assert again, "no cosine head after reset_classifier(7)"
        assert {head.num_classes for head in again.values()} == {7}, "reset_classifier(7) gave another count"
        logits = model(torch.empty(2, *model.pretrained_cfg["input_size"]))
        _expect_logits(logits[0] if isinstance(logits, tuple) else logits, 7)
    return tuple(heads)


def sweep_transformers(patterns: list[str]) -> Iterator[Row]:
    """Build, convert and run each native image classifier on the meta device, at its default configuration."""
    import torch
    from rich.progress import track

    from cosify import convert, find_heads
    from cosify.models.classifiers import input_shape
    from cosify.models.inference import logits_of

    for config_class, model_class in track(native_classifiers(), description="transformers"):
        if not chosen([model_class.__name__], patterns):
            continue
        heads: tuple[str, ...] = ()
        try:
            with torch.device("meta"):
                config = config_class(num_labels=10)
                model = convert(model_class(config)).eval()
                found = find_heads(model)
                heads = tuple(found)
                images = torch.empty(2, *input_shape(model))
                with _every_head_called(found):
                    logits = logits_of(model, images)
                _expect_logits(logits, 10)
            yield Row("transformers", model_class.__name__, 10, "ok", heads)
        except Exception as error:  # a sweep reports whatever a model raises
            message = f"{type(error).__name__}: {error}"
            outcome = "converted, not run" if heads else "failed"  # some models need more inputs than an image
            yield Row("transformers", model_class.__name__, 10, outcome, heads, message)


def native_classifiers() -> list[tuple[Any, Any]]:
    """Return config and model class of each image classifier of transformers; not timm's models, nor our wrapper."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    found = []
    for config_class, classes in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.items():
        if config_class.model_type not in ("timm_wrapper", "cosified"):
            found += [(config_class, each) for each in (classes if isinstance(classes, tuple) else (classes,))]
    return found


@contextmanager
def _every_head_called(heads: "dict[str, CosineHead]") -> Iterator[None]:
    """Fail unless each head is called exactly once within this context."""
    calls = Counter[str]()
    hooks = [head.register_forward_hook(lambda *_, name=name: calls.update([name])) for name, head in heads.items()]
    yield
    for hook in hooks:
        hook.remove()
    assert calls == dict.fromkeys(heads, 1), f"heads were called {dict(calls)} times, expected once each"


def _expect_logits(logits: object, num_classes: int) -> None:
    shape = tuple(getattr(logits, "shape", ()))
    assert shape[:1] == (2,), f"logits have shape {shape}"
    assert shape[-1] == num_classes, f"logits have shape {shape}, expected {num_classes} classes"


def table(rows: list[Row]) -> str:
    """Return the counts as markdown tables, and below them each architecture that was not converted and run."""
    groups = Counter(
        (row.library, "with a classifier" if row.default_classes else "headless, num_classes=10", row.outcome)
        for row in rows
    )
    lines = ["| library | architectures | outcome | count |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(key)} | {count} |" for key, count in sorted(groups.items())]
    num_heads = Counter((row.library, len(row.heads)) for row in rows if row.outcome == "ok")
    lines += ["", "| library | heads per model | count |", "| --- | --- | --- |"]
    lines += [f"| {library} | {heads} | {count} |" for (library, heads), count in sorted(num_heads.items())]
    lines += [
        "",
        *(
            f"- {row.architecture}: {row.outcome}: {' '.join(row.message.split())[:200]}"
            for row in rows
            if row.outcome != "ok"
        ),
    ]
    return "\n".join(lines) + "\n"


def main(args: SweepArguments) -> None:
    """Run the sweep, write sweep.jsonl and sweep.md."""
    import timm

    import cosify  # noqa: F401

    names = [*timm.list_models(), *(model_class.__name__ for _, model_class in native_classifiers())]
    idle = [pattern for pattern in args.models if not chosen(names, [pattern])]
    if idle:
        raise InputError(
            f"models has {idle}, which matches no architecture of timm and no class of transformers, expected names or"
            " patterns such as 'test_*'; check the spelling"
        )
    logging.getLogger("cosify").setLevel(logging.ERROR)
    rows = [*sweep_timm(args.models), *sweep_transformers(args.models)]
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "sweep.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in rows))
    write_whole(folder / "sweep.md", table(rows))
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    from cosify.console import Command

    Command(main, SweepArguments, __doc__).run()
