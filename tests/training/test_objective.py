"""What is minimised, and where its minimum lies."""

import math

import pytest
import timm
import torch
from timm.data import Mixup
from torch import Tensor, nn

from cosify.heads import CosineLinear, CosineSoftmaxLoss
from cosify.training import TrainArguments
from cosify.training.objective import Objective

COUNTS = torch.tensor([5000, 2300, 1000, 480, 220, 100, 48, 22, 10, 5])  # a long tail
CLASSES = len(COUNTS)
WEIGHTS = COUNTS.sum() / (CLASSES * COUNTS.double())


def objective(counts: Tensor | None = COUNTS, model: nn.Module | None = None, **settings: object) -> Objective:
    args = TrainArguments(balance="none" if counts is None else "loss", **settings)  # type: ignore[arg-type]
    return Objective(nn.Identity() if model is None else model, args, counts)


def test_a_balanced_and_smoothed_loss_has_its_minimum_at_the_smoothed_target() -> None:
    labels = torch.arange(CLASSES)
    probability = torch.full((CLASSES, CLASSES), 0.1 / CLASSES)
    probability.fill_diagonal_(0.9 + 0.1 / CLASSES)
    logits = probability.log().requires_grad_()
    loss, correct = objective(label_smoothing=0.1)(logits, labels)
    loss.backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-6 * float(WEIGHTS.max()))
    assert int(correct) == CLASSES
    entropy = -float((probability[0] * probability[0].log()).sum())
    assert loss.item() == pytest.approx(entropy * float(WEIGHTS.mean()), rel=1e-6)


def test_exact_minimisation_gets_every_class_of_a_long_tail_right() -> None:
    logits, labels = torch.zeros(CLASSES, CLASSES, requires_grad=True), torch.arange(CLASSES)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")
    whole = objective(label_smoothing=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = whole(logits, labels)[0]
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    assert logits.detach().softmax(dim=1).diagonal().tolist() == pytest.approx([0.91] * CLASSES, abs=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_mixed_image_weighs_as_its_labels_do_and_keeps_its_target(smoothing: float) -> None:
    labels = torch.tensor([0, 9, 5, 3])
    torch.manual_seed(0)
    mixup = Mixup(mixup_alpha=1.0, label_smoothing=smoothing, num_classes=CLASSES)
    mixup._params_per_batch = lambda: (0.7, False)
    _, targets = mixup(torch.zeros(4, 1, 2, 2), labels)
    logits = torch.randn(4, CLASSES, requires_grad=True)
    loss, _ = objective(label_smoothing=smoothing)(logits, targets)
    weight = 0.7 * WEIGHTS[labels] + 0.3 * WEIGHTS[labels.flip(0)]
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(4):
        target = torch.full((CLASSES,), smoothing / CLASSES, dtype=torch.float64)
        target[labels[row]] += 0.7 * (1 - smoothing)
        target[labels[3 - row]] += 0.3 * (1 - smoothing)
        expected += -weight[row] * (target * logits[row].detach().double().log_softmax(0)).sum() / 4
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    logits = targets.clamp_min(1e-30).log().requires_grad_()
    objective(label_smoothing=smoothing)(logits, targets)[0].backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-6 * float(WEIGHTS.max()))


def test_an_unmixed_soft_target_weighs_as_its_label() -> None:
    labels, logits = torch.tensor([0, 9, 5]), torch.randn(3, CLASSES)
    smoothed = torch.full((3, CLASSES), 0.1 / CLASSES)
    smoothed[range(3), labels] += 0.9
    whole = objective(label_smoothing=0.1)
    torch.testing.assert_close(whole(logits, smoothed)[0], whole(logits, labels)[0])


class Embedding(nn.Module):
    """Images as embeddings, and a cosine head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = CosineLinear(4, CLASSES, kappa=8.0)

    def forward_features(self, x: Tensor) -> Tensor:
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(x)


class Normed(Embedding):
    """A norm, which `pre_logits` leaves out, stands before the head, as in timm's `NormLinear`."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        nn.init.normal_(self.norm.bias)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x if pre_logits else self.head(self.norm(x))


def test_a_margin_is_that_of_what_the_head_is_given() -> None:
    torch.manual_seed(0)
    model, images, labels = Normed(), torch.randn(16, 4) + 3, torch.arange(16) % CLASSES
    by_logits, _ = objective(None, model)(images, labels)
    with_margin = objective(None, model, cosine_margin=1e-9)
    loss, _ = with_margin(images, labels)
    torch.testing.assert_close(loss, by_logits)
    loss.backward()
    assert model.norm.weight.grad is not None
    assert model.norm.num_batches_tracked == 2
    assert "forward" not in vars(model.head), "the head is left as it was"


@pytest.mark.parametrize("name", ["efficientvit_m0", pytest.param("shvit_s1", marks=pytest.mark.slow)])
def test_a_margin_sees_the_norm_in_the_classifier_of_timm(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES, head="cos").eval()
    nn.init.normal_(model.head.bn.bias)
    images, labels = torch.randn(2, 3, 224, 224), torch.arange(2)
    with torch.no_grad():
        by_logits, _ = objective(None, model)(images, labels)
        torch.testing.assert_close(objective(None, model, cosine_margin=1e-9)(images, labels)[0], by_logits)


def test_both_routes_balance_and_smooth_alike() -> None:
    torch.manual_seed(0)
    model, images, labels = Embedding(), torch.randn(16, 4), torch.arange(16) % CLASSES
    by_logits, _ = objective(model=model, label_smoothing=0.1)(images, labels)
    by_embedding = objective(model=model, label_smoothing=0.1)
    by_embedding._embedding_loss = (CosineSoftmaxLoss(model.head, label_smoothing=0.1),)
    torch.testing.assert_close(by_embedding(images, labels)[0], by_logits)


def test_balance_alone_weighs_each_sample_by_its_class() -> None:
    logits, labels = torch.zeros(2, CLASSES), torch.tensor([0, 9])
    loss, _ = objective()(logits, labels)
    assert float(loss) == pytest.approx(float(WEIGHTS[[0, 9]].mean()) * math.log(CLASSES), rel=1e-6)
    assert float(objective(counts=None)(logits, labels)[0]) == pytest.approx(math.log(CLASSES), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_adjusted_logits_are_those_of_balanced_softmax_for_labels_and_mixed_targets(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(6, CLASSES), torch.arange(6) + 3
    mixed = torch.randn(6, CLASSES).softmax(dim=1)
    args = TrainArguments(balance="logits", label_smoothing=smoothing)
    whole = Objective(nn.Identity(), args, COUNTS)
    for targets in (labels, mixed):
        expected = 0.0
        for row in range(6):
            mass = [float(n) * math.exp(float(z)) for n, z in zip(COUNTS, logits[row].double(), strict=True)]
            for c in range(CLASSES):
                if targets.ndim == 2:
                    target = float(targets[row, c])
                else:
                    target = smoothing / CLASSES + (1 - smoothing) * (c == int(labels[row]))
                expected -= target * math.log(mass[c] / sum(mass)) / 6
        loss, correct = whole(logits, targets)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        answers = targets if targets.ndim == 1 else targets.argmax(dim=1)
        assert int(correct) == int((logits.argmax(dim=1) == answers).sum()), "counted by the plain logits"


@pytest.mark.parametrize("kappa", ["ls", "trainable", 8.0])
def test_adjusting_the_logits_leaves_kappa_and_the_head_alone(kappa: float | str) -> None:
    torch.manual_seed(0)
    model = Embedding()
    model.head = CosineLinear(4, CLASSES, kappa=kappa)
    images, labels = torch.randn(16, 4), torch.arange(16) % CLASSES
    plain = model.train()(images)
    assert model.head.last_kappa is not None
    before = model.head.last_kappa.clone()
    loss, _ = Objective(model, TrainArguments(balance="logits"), COUNTS)(images, labels)
    expected = nn.functional.cross_entropy(plain + (COUNTS / COUNTS.sum()).log(), labels)
    torch.testing.assert_close(loss, expected)
    assert torch.equal(model.head.last_kappa, before)


def test_logits_cannot_be_adjusted_with_a_margin_or_an_empty_class() -> None:
    with pytest.raises(ValueError, match="balance is 'logits' with a margin, whose loss never holds all logits; drop"):
        TrainArguments(balance="logits", cosine_margin=0.35)
    with pytest.raises(ValueError, match=r"1 of 3 classes have no training images, such as \[1\]"):
        Objective(nn.Identity(), TrainArguments(balance="logits"), torch.tensor([3, 0, 2]))
