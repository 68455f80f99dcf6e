"""Native transformers classifiers: conversion, saving, the Auto classes, pipeline and Trainer."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import cosify
from cosify.errors import InputError
from cosify.evaluation import check_label_names
from cosify.heads import CosineConv1x1, CosineLinear
from tests.integrations.tiny_vit import vit
from tests.processes import run_python

transformers = pytest.importorskip("transformers")
trainer_of = importlib.import_module("tests.integrations.trainers").trainer_of


def trained(kappa: float | str = "ls") -> Any:
    model = cosify.convert(vit(), kappa=kappa)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        model(pixel_values=IMAGES, labels=LABELS).loss.backward()
        optimizer.step()
    return model.eval()


IMAGES = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(10) % 5


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(pixel_values=IMAGES).logits


def test_conversion_keeps_the_weight_and_trains_with_labels() -> None:
    model = vit()
    weight = model.classifier.weight
    assert cosify.convert(model) is model
    assert isinstance(model.classifier, CosineLinear)
    assert model.classifier.weight is weight
    output = model(pixel_values=IMAGES, labels=LABELS)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, LABELS))
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_new_number_of_classes() -> None:
    model = cosify.convert(vit(), num_classes=9)
    assert model.config.num_labels == 9
    assert logits_of(model).shape == (10, 9)


@pytest.mark.parametrize("kappa", ["2ls", "adacos", 12.5])
def test_a_constant_kappa_follows_the_number_of_classes_of_this_model(kappa: float | str, tmp_path: Path) -> None:
    trained(kappa).save_pretrained(tmp_path)
    again = type(vit()).from_pretrained(tmp_path, num_labels=50, ignore_mismatched_sizes=True).classifier
    expected = CosineLinear(again.in_features, 50, kappa=kappa).start_kappa
    assert (again.inference_kappa(), again.start_kappa) == (pytest.approx(expected), expected)


@pytest.mark.parametrize(("kappa", "eval_kappa"), [("ls", "running"), ("ls", 3.0), ("trainable", "running")])
@pytest.mark.parametrize("way", ["native", "timm", "cosified"])
def test_kappa_of_other_classes_is_left_with_them(way: str, kappa: str, eval_kappa: Any, tmp_path: Path) -> None:
    model = trained(kappa)
    if way == "timm":
        cosify.save(timm.create_model("test_resnet", head="cos", kappa=kappa, num_classes=5), tmp_path / "timm")
        model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "timm")
    if way == "cosified":
        model = cosify.integrations.cosified.CosifiedForImageClassification.from_model(model)
    (head,) = cosify.find_heads(model).values()
    head.eval_kappa = eval_kappa
    with torch.no_grad():
        (head.kappa if head.log_kappa is None else head.log_kappa).fill_(1.7)
    model.save_pretrained(tmp_path)
    model_class = transformers.AutoModelForImageClassification
    again = model_class.from_pretrained(tmp_path, num_labels=50, ignore_mismatched_sizes=True)
    (head,) = cosify.find_heads(again).values()
    expected = CosineLinear(head.in_features, 50, kappa=kappa).start_kappa
    assert head.running_kappa() == head.inference_kappa() == pytest.approx(expected)
    (head,) = cosify.find_heads(model_class.from_pretrained(tmp_path)).values()
    assert head.eval_kappa == eval_kappa
    assert head.running_kappa() == pytest.approx(1.7 if head.log_kappa is None else np.exp(1.7))


@pytest.mark.parametrize("cosine", [True, False])
def test_a_classifier_that_the_user_put_in_comes_back(cosine: bool, tmp_path: Path) -> None:
    model = vit() if cosine else trained()
    dim = model.config.hidden_size
    model.classifier = CosineLinear(dim, 5, kappa=20.0) if cosine else torch.nn.Linear(dim, 5)
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    assert type(again.classifier) is type(model.classifier)
    torch.testing.assert_close(logits_of(again), logits_of(model))


def test_the_same_number_of_classes_is_a_new_classifier_too() -> None:
    model = cosify.convert(vit(id2label=dict(enumerate("abcde"))))
    weight = model.classifier.weight
    cosify.convert(model, num_classes=5)
    assert not torch.equal(model.classifier.weight, weight)
    assert model.config.id2label == {index: f"LABEL_{index}" for index in range(5)}


def test_twin_heads() -> None:
    config = transformers.DeiTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    config.num_labels = 4
    model = cosify.convert(transformers.DeiTForImageClassificationWithTeacher(config))
    assert sorted(cosify.find_heads(model)) == ["cls_classifier", "distillation_classifier"]
    assert logits_of(model).shape == (10, 4)


def test_classifier_inside_a_sequential() -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=4)
    model = cosify.convert(transformers.ResNetForImageClassification(config))
    assert list(cosify.find_heads(model)) == ["classifier.1"]
    assert not any(isinstance(head, CosineConv1x1) for head in cosify.find_heads(model).values())
    assert logits_of(model).shape == (10, 4)


@pytest.mark.parametrize("kappa", ["ls", "trainable", 20.0])
@pytest.mark.parametrize("way", ["save", "save_pretrained", "cosified", "save of cosified"])
def test_round_trips(way: str, kappa: float | str, tmp_path: Path) -> None:
    model = trained(kappa)
    expected = logits_of(model)
    wrapper = cosify.integrations.cosified.CosifiedForImageClassification.from_model(model)
    if way == "save_pretrained":
        model.save_pretrained(tmp_path)
    elif way == "cosified":
        wrapper.save_pretrained(tmp_path)
    else:
        cosify.save(model if way == "save" else wrapper, tmp_path)
    for other in (
        transformers.AutoModelForImageClassification.from_pretrained(tmp_path),
        cosify.load(tmp_path),
    ):
        assert isinstance(other, type(wrapper if way == "cosified" else model))
        (head,) = cosify.find_heads(other).values()
        assert head.kappa_spec == kappa
        torch.testing.assert_close(logits_of(other), expected, rtol=1e-4, atol=1e-4)
    assert wrapper.config.num_labels == 5


@pytest.mark.parametrize("way", ["save", "save_pretrained", "cosified", "opened cosified"])
def test_the_kappa_of_calibration_is_saved(way: str, tmp_path: Path) -> None:
    model = trained()
    wrapper = cosify.integrations.cosified.CosifiedForImageClassification.from_model(model)
    if way == "opened cosified":
        wrapper.save_pretrained(tmp_path / "first")
        wrapper = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "first")
    chosen = wrapper if "cosified" in way else model
    for head in cosify.find_heads(chosen).values():
        head.eval_kappa = 33.0
    if way == "save":
        cosify.save(chosen, tmp_path)
    else:
        chosen.save_pretrained(tmp_path)
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    assert [head.eval_kappa for head in cosify.find_heads(again).values()] == [33.0]
    torch.testing.assert_close(logits_of(again), logits_of(chosen), rtol=1e-4, atol=1e-4)


def test_label_names_with_keys_of_text_keep_their_numbers(tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(12)]
    model = vit(12)
    model.config.id2label = {str(index): name for index, name in enumerate(names)}  # as in tutorials
    check_label_names(cosify.convert(model), names)
    cosify.save(model, tmp_path)
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    assert [again.config.id2label[index] for index in range(12)] == names


def test_weight_decay_of_the_trainer_spares_kappa(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "trainable", callbacks=[])
    decayed = trainer.get_decay_parameter_names(trainer.model)
    assert "classifier.weight" in decayed
    assert "classifier.log_kappa" not in decayed


def test_accelerate_fills_a_model_without_storage(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    full = timm.create_model("test_resnet", head="cos", num_classes=7).eval()
    save_file(full.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    with accelerate.init_empty_weights():
        model = timm.create_model("test_resnet", head="cos", num_classes=7)
    accelerate.load_checkpoint_in_model(model, str(tmp_path / "model.safetensors"))
    model.to("cpu")
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), full(images))
    model.train()(images)
    assert model.fc.kappa.isfinite()


@pytest.mark.parametrize("value", [-5.0, torch.nan])
def test_damaged_kappa_of_a_checkpoint(value: float, tmp_path: Path) -> None:
    """transformers sets tensors one by one, past `load_state_dict`."""
    trained().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "classifier.kappa": torch.tensor(value)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"kappa of a saved head is (-5\.0|nan), expected a finite number above 0"):
        transformers.AutoModelForImageClassification.from_pretrained(tmp_path)


def test_other_labels_start_a_new_kappa(tmp_path: Path) -> None:
    cosify.save(trained(), tmp_path)
    load = transformers.AutoModelForImageClassification.from_pretrained
    other = load(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    assert other.classifier.kappa.item() == pytest.approx(cosify.functional.expected_kappa(3))
    assert logits_of(other).shape == (10, 3)


@pytest.mark.slow
def test_stock_transformers_reads_the_same_labels(tmp_path: Path) -> None:
    model = trained()
    cosify.save(model, tmp_path)
    torch.save({"images": IMAGES, "labels": logits_of(model).argmax(1)}, tmp_path / "expected.pt")
    code = f"""
import sys, torch
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained({str(tmp_path)!r})
expected = torch.load({str(tmp_path / "expected.pt")!r}, weights_only=True)
assert type(model.classifier) is torch.nn.Linear
assert torch.equal(model(pixel_values=expected["images"]).logits.argmax(1), expected["labels"])
assert "cosify" not in sys.modules
print("done")
"""
    assert run_python("-c", code).endswith("done\n")


def test_pipeline(tmp_path: Path) -> None:
    model = trained()
    cosify.save(model, tmp_path, label_names=list("abcde"))
    size = {"height": 32, "width": 32}
    transformers.ViTImageProcessorPil(size=size).save_pretrained(tmp_path)
    classify = transformers.pipeline("image-classification", str(tmp_path), top_k=5)
    assert isinstance(classify.model.classifier, CosineLinear)
    picture = Image.fromarray((np.arange(32 * 32 * 3) % 251).reshape(32, 32, 3).astype(np.uint8))
    assert sorted(row["label"] for row in classify(picture)) == list("abcde")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Trainer's dataloader speaks of pinned memory on a CPU
@pytest.mark.parametrize("kind", ["native", "cosified"])
def test_trainer(kind: str, tmp_path: Path) -> None:
    model = cosify.convert(vit())
    if kind == "cosified":
        model = cosify.integrations.cosified.CosifiedForImageClassification.from_model(model)
    rows = [{"pixel_values": image, "labels": int(label)} for image, label in zip(IMAGES, LABELS, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=5,
        learning_rate=1e-3,
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        save_steps=4,
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert all(np.isfinite(row["loss"]) for row in trainer.state.log_history if "loss" in row)
    expected = trainer.evaluate()["eval_loss"]
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "checkpoint-4")
    assert type(again) is type(model)
    torch.testing.assert_close(logits_of(again), logits_of(model))
    assert expected == pytest.approx(torch.nn.functional.cross_entropy(logits_of(again), LABELS).item(), rel=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")  # as above
@pytest.mark.parametrize("kind", ["native", "cosified"])
def test_a_short_last_batch_weighs_as_much_as_its_images(kind: str, tmp_path: Path) -> None:
    model = cosify.convert(vit(), kappa=20.0)
    rows = [{"pixel_values": IMAGES[index % 4], "labels": index % 5} for index in range(5)]  # batches of 3 and 2
    images, labels = torch.stack([row["pixel_values"] for row in rows]), torch.tensor([row["labels"] for row in rows])
    expected = torch.nn.functional.cross_entropy(model(images).logits, labels).item()
    if kind == "cosified":
        model = cosify.integrations.cosified.CosifiedForImageClassification.from_model(model)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        save_strategy="no",
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-3)  # which rounds what it logs


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"ViTModel has no image classifier, expected a ...ForImageClassification"):
        cosify.convert(vit().vit)
    with pytest.raises(ValueError, match=r"problem_type is 'multi_label_classification'.*no bias, so a sigmoid"):
        cosify.convert(vit(problem_type="multi_label_classification"))
    config = cosify.integrations.cosified.CosifiedConfig()
    with pytest.raises(ValueError, match=r"has no base model; make it with CosifiedForImageClassification.from_model"):
        transformers.AutoModelForImageClassification.from_config(config)


def test_converting_the_wrapper_reaches_the_model_inside(tmp_path: Path) -> None:
    wrapper = cosify.integrations.cosified.CosifiedForImageClassification.from_model(vit())
    cosify.convert(wrapper, kappa=60.0)
    wrapper.save_pretrained(tmp_path)
    other = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    assert other.model.classifier.kappa_spec == 60.0


@pytest.mark.parametrize("way", ["save", "save_pretrained"])
@pytest.mark.parametrize("on", ["wrapper", "inside"])
def test_label_names_given_to_a_wrapped_model_are_saved(on: str, way: str, tmp_path: Path) -> None:
    wrapper = cosify.integrations.cosified.CosifiedForImageClassification.from_model(vit())
    (wrapper if on == "wrapper" else wrapper.model).config.id2label = dict(enumerate("abcde"))
    if way == "save":
        cosify.save(wrapper, tmp_path)
    else:
        wrapper.save_pretrained(tmp_path)
    other = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    assert other.config.id2label == dict(enumerate("abcde"))
    cosify.convert(other, num_classes=5)
    assert other.config.id2label == {index: f"LABEL_{index}" for index in range(5)}


def seen(model: Any) -> dict[str, Any]:
    """What an option of from_pretrained can change, on the model and on what computes."""
    inner = getattr(model, "model", model)
    output = model.eval()(pixel_values=IMAGES.to(model.dtype))
    answer = output.logits, output.hidden_states, output.attentions
    return {
        "dtypes": {parameter.dtype for name, parameter in model.named_parameters()},
        "attention": {model.config._attn_implementation, inner.config._attn_implementation},
        "answer": [len(part) if isinstance(part, tuple) else None if part is None else part.shape for part in answer],
        "num_labels": {model.num_labels, model.config.num_labels, inner.config.num_labels, len(inner.config.id2label)},
        "dropout": {model.config.hidden_dropout_prob, inner.config.hidden_dropout_prob},
        "names": (model.config.id2label, inner.config.id2label),
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": torch.bfloat16},
        {"dtype": "float16"},
        {"attn_implementation": "eager"},
        {"attn_implementation": "sdpa"},
        {"attn_implementation": "eager", "output_attentions": True},
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"device_map": "cpu"},
        {"hidden_dropout_prob": 0.3},
        {"num_labels": 3, "ignore_mismatched_sizes": True},
        {"id2label": {0: "x", 1: "y"}, "label2id": {"x": 0, "y": 1}, "ignore_mismatched_sizes": True},
        {"attn_implementation": "flash_attention_2"},
        {"attn_implementation": "bogus"},
        {"bogus": 1},
    ],
    ids=str,
)
def test_options_of_from_pretrained_do_what_they_do_to_a_stock_model(options: dict[str, Any], tmp_path: Path) -> None:
    vit().save_pretrained(tmp_path / "stock")
    load = transformers.AutoModelForImageClassification.from_pretrained
    wrapper = cosify.integrations.cosified.CosifiedForImageClassification.from_model(load(tmp_path / "stock"))
    wrapper.save_pretrained(tmp_path / "ours")
    try:
        expected = seen(load(tmp_path / "stock", **options))
    except (ImportError, ValueError, TypeError) as error:
        with pytest.raises(type(error)):
            load(tmp_path / "ours", **options)
    else:
        assert seen(load(tmp_path / "ours", **options)) == expected


def test_options_of_the_wrapper_reach_the_model_inside() -> None:
    wrapper = cosify.integrations.cosified.CosifiedForImageClassification.from_model(vit())
    assert wrapper.config._attn_implementation == wrapper.model.config._attn_implementation == "sdpa"
    wrapper.set_attn_implementation("eager")
    assert wrapper.config._attn_implementation == wrapper.model.config._attn_implementation == "eager"
    with_checkpointing = [m for m in wrapper.modules() if getattr(m, "gradient_checkpointing", None) is False]
    wrapper._set_gradient_checkpointing()
    assert with_checkpointing
    assert all(module.gradient_checkpointing for module in with_checkpointing)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=4)
    stock = transformers.ResNetForImageClassification(config)
    wrapper = cosify.integrations.cosified.CosifiedForImageClassification.from_model(stock)
    assert wrapper.supports_gradient_checkpointing == stock.supports_gradient_checkpointing
    assert wrapper.model is stock
