"""The classifier is found by where it stands in the model: other layers of its width are left alone."""

import importlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from torch import nn

import cosify
from cosify.models.classifiers import input_shape
from cosify.models.inference import logits_of
from tests.models.test_conversion import KINDS

transformers = pytest.importorskip("transformers")
auto: Any = importlib.import_module("transformers.models.auto.modeling_auto")

# These took other layers for heads, when as many classes were asked for as those have outputs.
FAST = ("CLIP", "HGNetV2", "MetaClip2", "PPLCNet", "Siglip", "Siglip2")
# It needs natten, which is built for GPUs; a yes-no question to a language model.
WITHOUT = ("DinatForImageClassification", "ShieldGemma2ForImageClassification")


def all_classes() -> Iterator[Any]:
    for value in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values():
        for name in (value,) if isinstance(value, str) else value:
            fast = name.removesuffix("ForImageClassification") in FAST
            if name not in WITHOUT:
                yield pytest.param(name, marks=() if fast else pytest.mark.slow)


def build(name: str, num_labels: int) -> Any:
    """A model without storage, of the library's default size, with one layer in each encoder."""
    cls = getattr(transformers, name)
    config = cls.config_class()
    for part in (config, *(getattr(config, key, None) for key in ("vision_config", "text_config"))):
        if isinstance(getattr(part, "num_hidden_layers", None), int):
            part.num_hidden_layers = 1
    for key in ("depths", "depth", "num_hidden_layers"):  # a number for each stage
        if isinstance(getattr(config, key, None), list):
            setattr(config, key, [1] * len(getattr(config, key)))
    if "EfficientNet" in name:
        config.depth_coefficient = 0.1
    config.num_labels = num_labels
    if config.model_type == "timm_wrapper":
        config.architecture = "resnet18"
    if "Perceiver" in name:  # its three classes differ in a width that one number of heads does not divide
        config.num_cross_attention_heads = 1
    with torch.device("meta"):
        return cls(config)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def widths(model: nn.Module) -> list[int]:
    """The two most frequent numbers of outputs."""
    layers = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return [width for width, _ in Counter(weight.shape[0] for weight in layers).most_common(4) if width > 2][:2]


@pytest.mark.parametrize("name", list(all_classes()))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_transformers_classifiers_at_every_width(name: str) -> None:
    model = build(name, 7)
    other = shapes(build(name, 11))
    # The definition: the layers that another number of labels changes.
    expected = sorted({key.rpartition(".")[0] for key, shape in shapes(model).items() if other[key] != shape})
    assert expected
    assert sorted(cosify.find_classifiers(model)) == expected
    for width in widths(model):
        model = build(name, width)
        assert sorted(cosify.find_classifiers(model)) == expected, width
        assert sorted(cosify.find_heads(cosify.convert(model))) == expected, width


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_timm_classifiers_at_every_width(name: str) -> None:
    with torch.device("meta"):
        for width in widths(timm.create_model(name)):
            assert sorted(cosify.find_classifiers(timm.create_model(name, num_classes=width))) == KINDS[name], width


@pytest.mark.skipif(not hasattr(transformers, "PPLCNetForImageClassification"), reason="this transformers has none")
def test_logits_by_another_name_are_found() -> None:
    logits = logits_of(build("PPLCNetForImageClassification", 7), torch.empty(2, 3, 64, 64, device="meta"))
    assert logits.shape == (2, 7)


def test_twins_inside_the_registered_class() -> None:
    model = build("DeiTForImageClassificationWithTeacher", 7)
    wrapper = cosify.integrations.cosified.CosifiedForImageClassification.from_model(model)
    assert sorted(cosify.find_classifiers(wrapper)) == ["model.cls_classifier", "model.distillation_classifier"]


def test_hidden_layer_beside_the_classifier_is_no_twin() -> None:
    class TwoLayersForImageClassification(transformers.ViTForImageClassification):  # type: ignore[misc, name-defined]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.classifier = nn.Linear(config.hidden_size, 16)
            self.last = nn.Linear(16, config.num_labels)

    config = transformers.ViTConfig(num_hidden_layers=1, num_labels=5)
    assert list(cosify.find_classifiers(TwoLayersForImageClassification(config))) == ["last"]


def test_model_that_ends_in_something_else_is_refused() -> None:
    model = build("ViTForImageClassification", 7)
    model.config.num_labels = 9
    with pytest.raises(ValueError, match=r"does not end in a linear layer with 9 outputs.* but in \['classifier'\]"):
        cosify.convert(model)


@pytest.mark.parametrize(
    ("name", "settings", "shape"),
    [
        ("ViT", {"image_size": [48, 32], "num_channels": 1}, (1, 48, 32)),
        ("CLIP", {"vision_config": {"image_size": 48}}, (3, 48, 48)),
        ("ResNet", {}, (3, 224, 224)),  # says nothing
    ],
)
def test_the_shape_of_its_images(name: str, settings: dict[str, Any], shape: tuple[int, int, int]) -> None:
    config = getattr(transformers, f"{name}Config")(**settings)
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForImageClassification")(config)
    assert input_shape(model) == shape


def test_the_shape_of_the_images_of_timm() -> None:
    assert input_shape(timm.create_model("test_resnet")) == (3, 160, 160)
