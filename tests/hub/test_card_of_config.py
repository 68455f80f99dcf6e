"""The card of a model without facts says what config.json does, and what nobody said."""

from pathlib import Path
from typing import Any

import pytest
import timm
from huggingface_hub import ModelCard
from PIL import Image

import cosify
from cosify.hub.card_of_config import minimal_card
from tests.integrations.tiny_vit import vit

CASES = [
    ({"kappa": 25.0}, "a cosine-softmax head, kappa fixed at 25 (25.00 in evaluation)"),
    ({"kappa": "ml", "eval_kappa": "sample"}, 'kappa by the policy "ml" (that of each sample in evaluation)'),
    ({"eval_kappa": 9.5}, 'kappa by the policy "ls" (9.50 in evaluation)'),
]


@pytest.mark.parametrize(("head", "said"), CASES)
def test_of_timm(head: dict[str, object], said: str, tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", head={"type": "cos", **head}, num_classes=12)
    cosify.save(model, tmp_path, label_names=[f"name {index}" for index in range(12)])
    text = minimal_card(tmp_path, "ORG/net")
    card = ModelCard(text, ignore_metadata_errors=False)
    assert (card.data.library_name, card.data.license) == ("timm", "unknown")
    assert "# net\n\nA test_resnet that tells 12 classes apart (name 0, name 1, " in text
    assert "name 9, ...), with " in text
    assert said in text
    assert 'timm.create_model("hf-hub:ORG/net", pretrained=True)' in text
    assert "does not say what the model was trained on" in text


def test_of_transformers_and_of_softmax(tmp_path: Path) -> None:
    cosify.save(cosify.convert(vit(num_labels=3)), tmp_path / "vit", label_names=["c", "a", "b"])
    text = minimal_card(tmp_path / "vit", "ORG/vit")
    assert "A ViTForImageClassification that tells 3 classes apart (c, a, b), with a cosine-softmax head" in text
    assert 'AutoModelForImageClassification.from_pretrained("ORG/vit")' in text
    assert "images = torch.zeros(1, 3, 32, 32)" in text
    assert "pipeline(" not in text, "there is no image processor"
    assert ModelCard(text).data.library_name == "transformers"
    (tmp_path / "vit" / "preprocessor_config.json").write_text("{}")
    assert 'pipeline("image-classification", "ORG/vit")' in minimal_card(tmp_path / "vit", "ORG/vit")
    cosify.save(timm.create_model("test_resnet", num_classes=4), tmp_path / "softmax")
    assert "that tells 4 classes apart, with an ordinary softmax head." in minimal_card(tmp_path / "softmax", "ORG/s")


@pytest.mark.parametrize("with_processor", [False, True])
def test_the_code_of_a_transformers_card_runs(with_processor: bool, tmp_path: Path) -> None:
    import transformers

    cosify.save(cosify.convert(vit(num_labels=3), kappa=5.0), tmp_path)
    if with_processor:
        transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    code = minimal_card(tmp_path, f"ORG/{tmp_path}").split("```")[1].removeprefix("python\n")
    made: dict[str, Any] = {}
    exec(code.replace(f"ORG/{tmp_path}", str(tmp_path)), made)
    if with_processor:
        assert len(made["classify"](Image.new("RGB", (40, 50)))) == 3
    else:
        assert made["labels"].tolist() == made["model"](made["images"]).logits.argmax(1).tolist()
