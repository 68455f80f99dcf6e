"""Look at the first epochs of LS: when is kappa* too large to learn from, and what helps?

    python scripts/ls_start.py runs/faces/lfw --output scripts/results/ls_start
    python scripts/ls_start.py --smoke

DATA has train.parquet and test.parquet.  Each case trains the same small network for a few epochs and notes, at the
first batch and by epoch, the loss beside log C, that of guessing; kappa*; the common direction of the features, |mean
of x / |x||, from 0 to 1; and the spread of a sample's cosines over the classes.  A loss above log C says that kappa* is
too large: with cosines of spread s it is about log C + (kappa s)^2 / 2.
"""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosify.settings import AT_LEAST_1, SEEDS, flag

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cosify.heads import CosineLinear

logger = logging.getLogger("cosify")
BATCH = 128
MOMENTUM, WEIGHT_DECAY, PEAK = 0.9, 5e-4, 0.1


@dataclass(frozen=True)
class Case:
    """What is changed.

    Attributes:
        name: of the case.
        kappa: of the head.
        neck: batch norm between features and head.
        start: where class weights begin: as drawn, or at the means of their class' first features, centred or not.
        bound: largest kappa of the first epoch, in multiples of the closed form's least value; None for no bound.
        classes: how many classes, those with most images; None for all.
        width: of the network; d = 512 * width.
    """

    name: str
    kappa: float | str = "ls"
    neck: bool = False
    start: str = "drawn"
    bound: float | None = None
    classes: int | None = None
    width: float = 0.125


CASES = (
    Case("LS"),
    Case("fixed 20", kappa=20.0),
    Case("LS, batch norm", neck=True),
    Case("fixed 20, batch norm", kappa=20.0, neck=True),
    Case("LS, class means", start="means"),
    Case("LS, centred class means", start="centred"),
    Case("fixed 20, centred class means", kappa=20.0, start="centred"),
    Case("LS, batch norm, centred class means", neck=True, start="centred"),
    Case("fixed 20, batch norm, centred class means", kappa=20.0, neck=True, start="centred"),
    Case("LS, bounded by 2 x closed form", bound=2.0),
    Case("LS, batch norm, bounded by 2 x closed form", neck=True, bound=2.0),
    Case("LS, 1000 classes", classes=1000),
    Case("LS, 281 classes", classes=281),
    Case("LS, 62 classes", classes=62),
    Case("LS, d = 128", width=0.25),
    Case("LS, d = 128, batch norm", width=0.25, neck=True),
)


@dataclass(frozen=True)
class Sets:
    """Images [N, channels, H, W], uint8, and labels [N], to train and to test."""

    images: "Tensor"
    labels: "Tensor"
    test_images: "Tensor"
    test_labels: "Tensor"

    def of_largest(self, num: int | None) -> "Sets":
        """Return the images of the `num` largest classes, numbered anew; of all for None."""
        import torch

        if num is None:
            return self
        kept = self.labels.bincount().argsort(descending=True, stable=True)[:num]
        place = torch.full((int(self.labels.max()) + 1,), -1)
        place[kept] = torch.arange(len(kept))
        chosen, tested = place[self.labels] >= 0, place[self.test_labels] >= 0
        labels, test_labels = place[self.labels[chosen]], place[self.test_labels[tested]]
        return Sets(self.images[chosen], labels, self.test_images[tested], test_labels)


@dataclass(frozen=True)
class StartArguments:
    """What is trained."""

    data: str = flag("digits", "Folder with train.parquet. Default: the digits.")
    epochs: int = flag(3, "Passes over the images. Default 3.", AT_LEAST_1)
    side: int = flag(32, "Side of the images, pixels. Default 32.", AT_LEAST_1)
    seeds: list[int] = flag([0], "Seeds. Default 0.", SEEDS)
    output: str = flag("runs/ls_start", "Folder of results.json, to which missing cases are added.")
    smoke: bool = flag(False, "An epoch of the first cases on the digits. Default: off.")


def main(args: StartArguments) -> None:
    """Train what is missing."""
    import torch

    from cosify.console import set_up_logging
    from cosify.files import write_json
    from cosify.training.environment import describe_environment

    set_up_logging()
    torch.set_num_threads(1)
    sets = load(args)
    path = Path(args.output, "results.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    done: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    for seed in args.seeds:
        for case in CASES[:2] if args.smoke else CASES:
            if any((row["case"]["name"], row["seed"]) == (case.name, seed) for row in done):
                continue
            done.append(train(case, sets, 1 if args.smoke else args.epochs, seed))
            settings = {"epochs": args.epochs, "side": args.side, "batch_size": BATCH}
            environment = describe_environment(torch.device("cpu"), 1)
            write_json(path, {"settings": settings, "environment": environment, "rows": done})


def load(args: StartArguments) -> "Sets":
    """Return the images and labels of both splits."""
    import numpy as np
    import torch
    from PIL import Image

    from cosify.data import load_splits

    splits, size = load_splits(args.data), (args.side, args.side)
    tensors = []
    for rows in (splits.train, splits.test):
        images = (row[splits.image_column].convert("RGB").resize(size, Image.Resampling.BILINEAR) for row in rows)
        tensors.append(torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2))
        tensors.append(torch.tensor(rows[splits.label_column][:]))
    return Sets(*tensors)


def train(case: Case, sets: Sets, epochs: int, seed: int) -> dict[str, Any]:
    """Train one case and return what was noted."""
    import timm
    import torch
    import torch.nn.functional as F

    from cosify.functional.grid import least_kappa
    from cosify.heads import CosineLinear

    sets = sets.of_largest(case.classes)
    images, labels = sets.images, sets.labels
    C = int(labels.max()) + 1
    torch.manual_seed(seed)
    model = timm.create_model("resnet18_cifar", num_classes=0, width=case.width, neck=case.neck)
    model.to(memory_format=torch.channels_last).train()
    head = CosineLinear(model.num_features, C, kappa=case.kappa)
    if case.start != "drawn":
        begin_at_means(head, model, images, labels, centred=case.start == "centred")
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, PEAK, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)
    steps = epochs * (len(labels) // BATCH)
    limit = None if case.bound is None else case.bound * least_kappa(C)
    row: dict[str, Any] = {"case": asdict(case), "seed": seed, "C": C, "d": model.num_features, "N": len(labels)}
    row.update({"log_C": math.log(C), "closed_form": least_kappa(C), "epochs": []})
    step = 0
    for epoch in range(epochs):
        sums: list[tuple[float, ...]] = []
        for pixels, targets in batches(images, labels, seed, epoch):
            for group in optimizer.param_groups:
                group["lr"] = PEAK * min((step + 1) / (steps / epochs), 1) * (1 + math.cos(math.pi * step / steps)) / 2
            features = model(pixels)
            logits = head(features)
            kappa = head.last_kappa
            assert kappa is not None
            cosine = (logits / kappa.unsqueeze(1)).detach()
            if limit is not None and epoch == 0:
                factor = kappa.clamp_max(limit) / kappa
                kappa, logits = kappa * factor, logits * factor.unsqueeze(1)
            loss = F.cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            unit = F.normalize(features.detach())
            common = float(unit.mean(dim=0).norm())
            own = float(cosine.gather(1, targets.unsqueeze(1)).mean())
            edge = float((kappa > 148).float().mean())
            sums.append((loss.item(), float(kappa.mean()), edge, common, float(cosine.std(dim=1).mean()), own))
            if step == 0:
                row["first_batch"] = named(sums[0])
            step += 1
        means = named(tuple(sum(values) / len(values) for values in zip(*sums, strict=True)))
        row["epochs"].append(means | {"test_accuracy": test_accuracy(model, head, sets)})
    losses = ", ".join(f"{each['loss']:.2f}" for each in row["epochs"])
    kappas = ", ".join(f"{each['kappa']:.1f}" for each in row["epochs"])
    right = row["epochs"][-1]["test_accuracy"]
    message = "%s, seed %d: loss %s (log C %.2f), kappa %s, test accuracy %.1f %%"
    logger.info(message, case.name, seed, losses, row["log_C"], kappas, 100 * right)
    return row


def test_accuracy(model: "nn.Module", head: "nn.Module", sets: Sets) -> float:
    """Return the share of test images that are told right, batch norms and head in evaluation."""
    import torch

    model.eval(), head.eval()
    with torch.no_grad():
        parts = sets.test_images.float().div(127.5).sub(1).split(256)
        answers = torch.cat([head(model(part)).argmax(dim=1) for part in parts])
    model.train(), head.train()
    return float((answers == sets.test_labels).float().mean())


def named(values: tuple[float, ...]) -> dict[str, float]:
    """Return the numbers of a batch, or their means over an epoch, by name."""
    names = ("loss", "kappa", "high_edge", "common_direction", "cosine_spread", "own_cosine")
    return dict(zip(names, values, strict=True))


def batches(images: "Tensor", labels: "Tensor", seed: int, epoch: int) -> "Iterator[tuple[Tensor, Tensor]]":
    """Yield normalised and mirrored images with labels."""
    import torch

    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    for rows in torch.randperm(len(labels), generator=generator).split(BATCH):
        if len(rows) == BATCH:
            pixels = images[rows].float().div(127.5).sub(1)
            flip = torch.rand(len(rows), generator=generator) < 0.5
            mirrored = torch.where(flip[:, None, None, None], pixels.flip(3), pixels)
            yield mirrored.contiguous(memory_format=torch.channels_last), labels[rows]


def begin_at_means(
    head: "CosineLinear", model: "nn.Module", images: "Tensor", labels: "Tensor", *, centred: bool
) -> None:
    """Set each class weight to the mean of the class' features under the untrained network, batch norms in training."""
    import torch

    with torch.no_grad():
        pixels = images.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        features = torch.cat([model(part) for part in pixels.split(256)])
        sums = torch.zeros_like(head.weight).index_add_(0, labels, features)
        means = sums / labels.bincount(minlength=len(sums)).clamp_min(1).unsqueeze(1)
        head.weight.copy_(means - features.mean(dim=0) if centred else means)


if __name__ == "__main__":
    from cosify.console import Command

    Command(main, StartArguments, __doc__, words=("data",)).run()
