"""The card of a model without facts: what its config.json says, and what is not known."""

import hashlib
import re
from pathlib import Path
from typing import Any

from cosify.heads import HeadSpec
from cosify.hub.contents import PROCESSOR
from cosify.hub.resolve import load
from cosify.models.binding import CONFIG
from cosify.models.classifiers import input_shape
from cosify.models.config import published_spec, read_config

SHOWN_NAMES = 10
TEXT = """---
library_name: {library}
pipeline_tag: image-classification
license: unknown
tags:
- image-classification
- {library}
- cosify
---

# {name}

A {architecture} that tells {num_classes} classes apart{classes}, with {head}.

## Use

```python
{use}
```

## What is not known

This card was written by cosify from `config.json` alone. It does not say what the model was trained on, under which
licence it may be used, how often it is right, or where it fails. Whoever publishes it should add that; `cosify
card --init facts.yaml` begins a full card, whose numbers come from files.
"""
SIGNED = "<!-- as cosify wrote it: {digest} -->\n"  # once someone has worked on the card, it is theirs
TIMM = """import timm
import cosify  # without it timm reads a linear layer that predicts the same labels

model = timm.create_model("hf-hub:{repo_id}", pretrained=True).eval()"""
TRANSFORMERS = """from transformers import pipeline
import cosify  # without it transformers reads a linear layer that predicts the same labels

classify = pipeline("image-classification", "{repo_id}")"""
UNPREPARED = """import torch
from transformers import AutoModelForImageClassification
import cosify  # without it transformers reads a linear layer that predicts the same labels

model = AutoModelForImageClassification.from_pretrained("{repo_id}").eval()
images = torch.zeros{shape}  # put yours here, prepared as in training: this repository has no image processor
with torch.no_grad():
    labels = model(images).logits.argmax(dim=1)"""


def minimal_card(folder: Path, repo_id: str) -> str:
    """Return the text of README.md.

    Args:
        folder: that `cosify.save` wrote.
        repo_id: `OWNER/NAME` on the hub.

    Raises:
        ValueError: if its config.json is damaged, or a transformers model without an image processor cannot be loaded.
    """
    config, spec = read_config(folder / CONFIG), published_spec(folder / CONFIG)
    is_timm = "architecture" in config
    library, use = ("timm", TIMM) if is_timm else ("transformers", TRANSFORMERS)
    shape: tuple[int, ...] = ()
    if lacks_processor(folder):
        use, shape = UNPREPARED, (1, *input_shape(load(folder)))
    names = _names(config)
    shown = ", ".join(map(str, names[:SHOWN_NAMES])) + (", ..." if len(names) > SHOWN_NAMES else "")
    text = TEXT.format(
        library=library,
        name=repo_id.partition("/")[2],
        architecture=config["architecture"] if is_timm else (config.get("architectures") or ["classifier"])[0],
        num_classes=config["num_classes"] if is_timm else len(names) or "its",
        classes=f" ({shown})" if names else "",
        head=_head(spec),
        use=use.format(repo_id=repo_id, shape=shape),
    )
    return text + SIGNED.format(digest=_digest(text))


def is_unchanged(card: str) -> bool:
    """Return whether a card is one of `minimal_card`, of whatever model and repository, that nobody has worked on."""
    found = re.fullmatch(f"(.*){SIGNED.format(digest='([0-9a-f]+)')}", card, re.DOTALL)
    return found is not None and found[2] == _digest(found[1])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def lacks_processor(folder: Path) -> bool:
    """Return whether transformers' pipeline fails on a saved folder: a native model without its image processor.

    timm's models need none: transformers reads how their images are prepared from config.json.
    """
    return "architecture" not in read_config(folder / CONFIG) and not (folder / PROCESSOR).is_file()


def _names(config: dict[str, Any]) -> list[Any]:
    if "id2label" in config:
        return [config["id2label"][key] for key in sorted(config["id2label"], key=int)]
    return list(config.get("label_names", []))


def _head(spec: HeadSpec | None) -> str:
    if spec is None:
        return "an ordinary softmax head"
    fixed, number = isinstance(spec.kappa, (int, float)), spec.kappa_in_evaluation
    how = f"kappa fixed at {spec.kappa:g}" if fixed else f'kappa by the policy "{spec.kappa}"'
    used = "that of each sample" if spec.eval_kappa == "sample" else "unknown" if number is None else f"{number:.2f}"
    return f"a cosine-softmax head, {how} ({used} in evaluation)"
