"""Classifiers that begin at the centred class means, or trained alone."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import cosify
from cosify.models import find_heads
from cosify.training import CosifyArguments, FinetuneArguments, Session, TrainArguments, head_start
from cosify.training.head_start import begin_heads
from cosify.training.model import ModelChoice, build_model, preprocessing_of
from tests.processes import run_distributed


def opened(folder: Path, kappa: str, num_classes: int = 10) -> tuple[Session, nn.Module]:
    """Return a run on ten classes of synthetic images, and a small network; "softmax" as kappa for a plain head."""
    head = "linear" if kappa == "softmax" else "cos"
    args = TrainArguments(
        data="synthetic", batch_size=64, tracker="none", output=str(folder / "run"), head=head,
        kappa="ls" if head == "linear" else kappa,
    )  # fmt: skip
    choice = ModelChoice.of(args)
    session = Session.open(args, "start", preprocessing_of(choice, pretrained=False))
    return session, build_model(choice, args, num_classes, 1)


def test_weights_point_at_the_centred_class_means_and_keep_their_lengths(tmp_path: Path) -> None:
    session, model = opened(tmp_path, "ls", num_classes=11)  # a class more than the data has
    (head,) = find_heads(model).values()
    drawn = head.weight.detach().clone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    begin_heads(session, model, "means")
    weight = head.weight.detach()
    assert [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])] == ["fc.weight"]
    torch.testing.assert_close(weight.norm(dim=1), drawn.norm(dim=1))
    assert torch.equal(weight[10], drawn[10])

    model.train()
    with torch.no_grad():
        batches = session.data.train_batches(64, epoch=0, seed=0, shard=session.shard)
        found = [(model.forward_head(model.forward_features(x), pre_logits=True), y) for x, y in batches]
    features = torch.cat([x for x, _ in found]).double().numpy()
    labels = torch.cat([y for _, y in found]).numpy()
    means = np.stack([features[labels == label].mean(axis=0) for label in range(10)]) - features.mean(axis=0)
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    directions = torch.nn.functional.normalize(weight[:10].double())
    np.testing.assert_allclose(directions.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FinetuneArguments, {"head": "linear"}), "head_start is 'means' with head linear, expected a cosine head"),
        ((FinetuneArguments, {"head": "cos", "class_parallel": True}), "head_start is 'means' with class_parallel"),
        ((CosifyArguments, {"class_parallel": True}), "head_start is 'means' with class_parallel"),
    ],
)
def test_refused_where_there_is_no_whole_cosine_weight(arguments: tuple[Any, dict[str, Any]], message: str) -> None:
    kind, settings = arguments
    with pytest.raises(ValueError, match=message):
        kind(**settings, head_start="means")


@pytest.mark.slow
@pytest.mark.parametrize("kappa", ["softmax", "ls", "20", "trainable"])
def test_a_probe_fits_the_features_and_changes_the_classifier_alone(tmp_path: Path, kappa: str) -> None:
    session, model = opened(tmp_path, kappa)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss() -> float:
        trained = copy.deepcopy(model).train()
        with torch.no_grad():
            batches = session.data.train_batches(64, epoch=0, seed=0, shard=session.shard)
            return torch.stack([nn.functional.cross_entropy(trained(x), y) for x, y in batches]).mean().item()

    random = loss()
    begin_heads(session, model, "probe")
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"} & set(before)
    if kappa != "softmax":
        torch.testing.assert_close(model.fc.weight.norm(dim=1), before["fc.weight"].norm(dim=1))
    assert loss() < 0.6 * random


@pytest.mark.slow
def test_a_probe_sees_as_many_features_as_memory_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session, model = opened(tmp_path, "20")
    monkeypatch.setattr(head_start, "MOST_NUMBERS", 100 * model.num_features)
    with caplog.at_level("INFO", logger="cosify"):
        begin_heads(session, model, "probe")
    assert "fc trained alone on 128 features of the start" in caplog.text, "two batches of 64"


@pytest.mark.slow
def test_ranks_begin_alike(tmp_path: Path) -> None:
    run_distributed("tests.training.head_start_worker", tmp_path, 2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for how, weight in first.items():
        assert torch.equal(weight, second[how]), f"each rank begins at the {how} of its own images"
    assert not torch.equal(first["probe"], first["means"])


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "cos"])
def test_a_classifier_that_is_a_convolution(tmp_path: Path, head: str) -> None:
    session, _ = opened(tmp_path, "20")
    model: Any = timm.create_model("mobilenetv3_small_050", num_classes=10, in_chans=1)
    model.classifier = nn.Sequential(
        nn.Unflatten(1, (-1, 1, 1)), nn.Conv2d(model.head_hidden_size, 10, 1), nn.Flatten()
    )
    if head == "cos":
        cosify.convert(model, 20.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    begin_heads(session, model, "probe")
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert set(changed) <= {"classifier.1.weight", "classifier.1.bias"}
    assert len(changed) > 0


class WithTokens(nn.Module):
    """A network with a second classifier, which sees three tokens of an image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.aux = network, copy.deepcopy(network.fc)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.network.forward_head(self.network.forward_features(images), pre_logits=True)  # type: ignore[operator]
        tokens = features.unsqueeze(1).expand(-1, 3, -1)
        return self.network.fc(features) + self.aux(tokens).mean(dim=1)  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["means", "probe"])
def test_classifiers_of_each_token_stay_as_they_are(tmp_path: Path, how: Any, caplog: pytest.LogCaptureFixture) -> None:
    session, network = opened(tmp_path, "20")
    model = WithTokens(network)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level("INFO", logger="cosify"):
        begin_heads(session, model, how)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["network.fc.weight"]
    assert caplog.text.count("classifier aux is given [3, 128] for an image, expected one embedding of 128") == 1


def test_classifiers_of_tokens_alone_are_refused(tmp_path: Path) -> None:
    session, model = opened(tmp_path, "20")
    model.fc.register_forward_pre_hook(lambda _, inputs: inputs[0].unsqueeze(1).expand(-1, 3, -1), prepend=True)
    with pytest.raises(
        ValueError, match=r"classifier fc is given \[3, 128\] for an image, .* use --set head_start=none"
    ):
        begin_heads(session, model, "probe")


def test_too_few_images_are_told_as_ever(tmp_path: Path) -> None:
    args = TrainArguments(data="synthetic", batch_size=512, tracker="none", output=str(tmp_path / "run"))
    choice = ModelChoice.of(args)
    with pytest.raises(ValueError, match="training samples do not fill one batch of 512"):
        Session.open(args, "start", preprocessing_of(choice, pretrained=False))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_probe_sees_the_classes_as_training_does(tmp_path: Path) -> None:
    """Under balance "logits" its loss has the classes' shares in it: features without use give even weights."""
    args = TrainArguments(
        data="synthetic", batch_size=8, tracker="none", output=str(tmp_path / "run"), head="linear", balance="logits",
        imbalance=5,
    )  # fmt: skip
    choice = ModelChoice.of(args)
    session = Session.open(args, "start", preprocessing_of(choice, pretrained=False))
    biases = {}
    for balance in ("logits", "none"):
        model = build_model(choice, args, 10, 1)
        with torch.no_grad():
            for parameter in model.layer4.parameters():
                parameter.zero_()  # features say nothing of the class
        begin_heads(replace(session, args=replace(args, balance=balance)), model, "probe")  # type: ignore[arg-type]
        biases[balance] = model.fc.bias.detach()
    spread = {balance: (bias.max() - bias.min()).item() for balance, bias in biases.items()}
    assert spread["none"] > 3 * spread["logits"], "the classes' shares are learnt, to be added once more in training"
