"""The card of a model without facts says what config.json does, and what nobody said."""

from pathlib import Path

import pytest
import timm
from huggingface_hub import ModelCard

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
    assert 'pipeline("image-classification", "ORG/vit")' in text
    assert ModelCard(text).data.library_name == "transformers"
    cosify.save(timm.create_model("test_resnet", num_classes=4), tmp_path / "softmax")
    assert "that tells 4 classes apart, with an ordinary softmax head." in minimal_card(tmp_path / "softmax", "ORG/s")
