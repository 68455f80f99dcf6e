"""A picture in; out come its class, how sure the model is, and whether it would rather not answer.

    pip install 'cosify[lab,demo]'
    python hub_cards/space/app.py

On the hub this folder is a Space.  It needs no connection: the weights come with the package.
"""

from functools import cache
from typing import Any

import gradio as gr
import timm
import torch
from torch.nn.functional import normalize

import cosify
from cosify.evaluation.image_kinds import given_image
from cosify.functional import ls_kappa

NEAREST = 5  # classes shown
TITLE = "# cosify: a classifier that knows when it is wrong"
WORDS = """
The **cosine** of picture and class is what the model decides by. Below a **threshold**, which 95 % of its right
answers reach, it does not answer. **kappa\\*** is one over the temperature that fits this picture's cosines: the less
they stand apart, the larger it is.

So it turns away mistakes, and many pictures of things that it does not know. Noise, or anything like no photograph at
all, may pass: the norm of the features tells that better (`cosify evaluate --rejector norm`).
"""


def models() -> list[str]:
    """Return the published backbones that have a rejector by the largest cosine, by name."""
    return [name for _, name in choices()]


def choices() -> list[tuple[str, str]]:
    """Return them as they are shown, with the number of their classes, each with its name."""
    known = [each for each in cosify.list_backbones() if _rejects(each.name)]
    return [(f"{each.name}, {each.num_classes} classes", each.name) for each in known]


def _rejects(name: str) -> bool:
    try:
        return cosify.Rejector.load(name).score == "z_max"
    except FileNotFoundError:
        return False


@cache
def opened(name: str) -> tuple[Any, Any, "cosify.Rejector"]:
    """Return the model, the transform of its pictures, and its rejector."""
    model: Any = timm.create_model(name, pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    return model, transform, cosify.Rejector.load(name)


@torch.no_grad()
def look(file: str | None, name: str) -> tuple[str, list[list[str]]]:
    """Return what the model says of a picture's file, and its nearest classes with cosine and probability."""
    if file is None:
        return "Give a picture first.", []
    model, transform, rejector = opened(name)
    picture = given_image(file).convert("RGB")  # upright, on white where it is transparent, as the rejector sees it
    features = model.forward_features(transform(picture).unsqueeze(0))
    embedding = model.forward_head(features, pre_logits=True)
    head = model.get_classifier()
    cosine = (normalize(embedding) @ normalize(head.weight).T)[0]
    probability = head(embedding).softmax(dim=1)[0]
    decision = rejector(embedding)
    label, score = int(decision.label[0]), float(decision.score[0])
    names = model.pretrained_cfg["label_names"]
    verdict = f"## {names[label]}" if decision.accept[0] else f"## Rather no answer (at best: {names[label]})"
    side = "reaches" if decision.accept[0] else "stays below"
    kappa = float(ls_kappa(embedding, head.weight))
    said = (
        f"{verdict}\n\nThe largest cosine, **{score:.2f}**, {side} the threshold of {rejector.threshold:.2f}."
        f" kappa\\* of this picture is **{kappa:.1f}**; the model answers with {float(head.kappa):.1f}."
    )
    nearest = cosine.topk(NEAREST).indices.tolist()
    return said, [[names[each], f"{cosine[each]:.2f}", f"{100 * probability[each]:.0f} %"] for each in nearest]


def page() -> gr.Blocks:
    """Return the page."""
    shown = choices()
    with gr.Blocks(title="cosify", analytics_enabled=False) as blocks:
        gr.Markdown(TITLE)
        with gr.Row():
            with gr.Column():
                picture = gr.Image(type="filepath", image_mode=None, label="A picture", height=320)
                name = gr.Radio(shown, value=shown[0][1], label="Model")
            with gr.Column():
                said = gr.Markdown("## Give a picture", min_height=120)
                nearest = gr.Dataframe(
                    headers=["nearest class", "cosine", "probability"], interactive=False, label="Nearest classes"
                )
                gr.Markdown(WORDS)
        gr.on([picture.change, name.change], look, [picture, name], [said, nearest], api_name="look")
    return blocks


if __name__ == "__main__":
    page().launch()
