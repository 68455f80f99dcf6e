"""Class weights that begin at the centred class means."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cosify.models import find_heads
from cosify.training import CosifyArguments, FinetuneArguments, Session, TrainArguments
from cosify.training.imprinting import imprint
from cosify.training.model import ModelChoice, build_model, preprocessing_of


def test_weights_point_at_the_centred_class_means_and_keep_their_lengths(tmp_path: Path) -> None:
    args = TrainArguments(data="synthetic", batch_size=64, tracker="none", output=str(tmp_path / "run"))
    choice = ModelChoice.of(args)
    session = Session.open(args, "imprint", preprocessing_of(choice, pretrained=False))
    model = build_model(choice, args, 11, 1)  # a class more than the data has
    (head,) = find_heads(model).values()
    drawn = head.weight.detach().clone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    imprint(session, model)
    weight = head.weight.detach()
    assert [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])] == ["fc.weight"]
    torch.testing.assert_close(weight.norm(dim=1), drawn.norm(dim=1))
    assert torch.equal(weight[10], drawn[10])

    model.train()
    with torch.no_grad():
        batches = session.data.train_batches(64, epoch=0, seed=args.seed, shard=session.shard)
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
        ((FinetuneArguments, {"head": "linear"}), "imprint is on with head linear, expected a cosine head"),
        ((FinetuneArguments, {"head": "cos", "class_parallel": True}), "imprint is on with class_parallel"),
        ((CosifyArguments, {"class_parallel": True}), "imprint is on with class_parallel"),
    ],
)
def test_refused_where_there_is_no_whole_cosine_weight(arguments: tuple[Any, dict[str, Any]], message: str) -> None:
    kind, settings = arguments
    with pytest.raises(ValueError, match=message):
        kind(**settings, imprint=True)
