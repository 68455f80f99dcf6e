"""Train an embedding with a margin on the target cosine, kappa by least squares, through the embedding-level loss.

CosFace at m = 0.35 on characters, faces or any set with many classes; each epoch prints kappa*:

    python scripts/margin.py --data FOLDER --model resnet18_cifar --model-kwargs width=0.25 --image-size 28

See that it works, in seconds, on synthetic images:

    python scripts/margin.py --smoke

The plain path, which holds all logits and searches the whole grid, for comparison of time and memory:

    python scripts/margin.py --plain

The folder named by --output then holds config.json, environment.json and metrics.jsonl.
"""

import logging
import resource
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from cosify.heads import CosineLinear

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class MarginArguments:
    """Settings of one run."""

    data: str = field(default="digits", metadata={"help": "As in scripts/train.py. Default: scikit-learn's digits."})
    model: str = field(default="resnet18_cifar", metadata={"help": "Any timm model. Default: the CIFAR ResNet-18."})
    model_kwargs: list[str] = field(
        default_factory=lambda: ["width=0.125"], metadata={"help": "key=value. Default width=0.125: for a CPU."}
    )
    image_size: int = field(default=32, metadata={"help": "Side of the images in pixels. Default 32."})
    margin: float = field(default=0.35, metadata={"help": "On the cosine (CosFace). Default 0.35: the paper's field."})
    angular_margin: float = field(default=0.0, metadata={"help": "On the angle (ArcFace), radians. Default 0."})
    kappa: str = field(default="ls", metadata={"help": "Policy or number. Default ls, Eq. 11."})
    epochs: int = field(default=6, metadata={"help": "Passes over the training split. Default 6."})
    batch_size: int = field(default=128, metadata={"help": "Images a step. Default 128."})
    lr: float = field(default=0.1, metadata={"help": "Peak of a one-cycle schedule, SGD. Default 0.1."})
    plain: bool = field(
        default=False, metadata={"help": "Whole grid and all logits by autograd instead. Default: the loss of cosify."}
    )
    seed: int = field(default=0, metadata={"help": "Of weights and order. Default 0."})
    output: str = field(default="runs/margin", metadata={"help": "Run folder, replaced. Default runs/margin."})
    smoke: bool = field(default=False, metadata={"help": "Two epochs on synthetic images. Default: off."})


def main(args: MarginArguments) -> None:
    """Train and report."""
    import timm
    import torch

    from cosify.data import DeviceData, Shard, decode_splits, load_splits, num_train_batches
    from cosify.heads import CosineLinear, CosineSoftmaxLoss
    from cosify.heads.kappa_statistics import KappaStatistics
    from cosify.training.arguments import TrainArguments, kappa_policy
    from cosify.training.environment import describe_environment
    from cosify.training.model import ModelChoice
    from cosify.training.run_folder import RunFolder

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.smoke:
        args = replace(args, data="synthetic", epochs=2)
    settings = TrainArguments(data=args.data, model=args.model, model_kwargs=args.model_kwargs, kappa=args.kappa)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = load_splits(args.data)
    train, test = decode_splits(splits, image_size=args.image_size, fallback_size=args.image_size, device=device)
    classes, labels = train.labels.unique(return_inverse=True)  # a verification set has other classes than its test
    train = replace(train, labels=labels)
    choice = ModelChoice.of(settings)
    network = timm.create_model(choice.name, num_classes=0, in_chans=train.images.shape[1], **choice.kwargs)
    # Features behind a ReLU are alike in direction: centred, as in face models, they spread over the sphere.
    backbone = torch.nn.Sequential(network, torch.nn.BatchNorm1d(network.num_features)).to(device)
    head = CosineLinear(network.num_features, len(classes), kappa=kappa_policy(settings.kappa)).to(device)
    criterion: Any = CosineSoftmaxLoss(head, args.margin, args.angular_margin)
    loss_of = (lambda x, y: plain_loss(head, x, y, args.margin)) if args.plain else criterion
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=args.lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = args.epochs * num_train_batches(len(train), args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=steps)
    data = DeviceData(train, test, splits.label_names, "crop", None)
    config = {"script": "margin", "arguments": asdict(args), "num_classes": len(classes)}
    folder = RunFolder.create(args.output, config, overwrite=True)
    folder.write_environment(describe_environment(device, 1))
    for epoch in range(args.epochs):
        kappas, sums, start = KappaStatistics(device), torch.zeros(2, device=device), time.perf_counter()
        head_seconds = 0.0
        for images, targets in data.train_batches(args.batch_size, epoch=epoch, seed=args.seed, shard=Shard()):
            embedding = backbone(images)
            at_head = embedding.detach().requires_grad_()
            before = time.perf_counter()
            loss = loss_of(at_head, targets)
            optimizer.zero_grad()
            loss.backward()
            head_seconds += time.perf_counter() - before
            embedding.backward(at_head.grad)
            optimizer.step()
            schedule.step()
            sums += torch.stack([loss.detach() * len(targets), torch.tensor(float(len(targets)), device=device)])
            assert head.last_kappa is not None
            kappas.update(head.last_kappa)
        summary = kappas.summary()
        assert summary is not None
        record = {
            "epoch": epoch + 1,
            "train_loss": (sums[0] / sums[1]).item(),
            "seconds": time.perf_counter() - start,
            "head_seconds": head_seconds,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            **{f"kappa_{name}": value for name, value in asdict(summary).items()},
        }
        folder.append_metrics(record)
        folder.put_in_place()
        logger.info(
            "epoch %d  loss %.3f  kappa* %.2f [%.1f, %.1f]  edges %.1f %%  %.0f s, head %.1f s  peak %.0f MB",
            *(record[key] for key in ("epoch", "train_loss", "kappa_mean", "kappa_p10", "kappa_p90")),
            100 * (summary.low_edge + summary.high_edge),
            *(record[key] for key in ("seconds", "head_seconds", "peak_memory_mb")),
        )


def plain_loss(head: "CosineLinear", embedding: "Tensor", labels: "Tensor", margin: float) -> "Tensor":
    """Return the same loss by autograd: every candidate of the grid, and all logits."""
    import torch

    from cosify import functional

    with torch.no_grad():
        grid = functional.kappa_grid(device=embedding.device)
        energies = [functional.ls_energy(embedding, head.weight, kappa) for kappa in grid]
        kappa = grid[torch.stack(energies).argmin(dim=0)]
        head.record(embedding, kappa)
    return functional.cosine_softmax_loss(embedding, head.weight, labels, kappa, margin)


if __name__ == "__main__":
    from cosify.command import run_main

    run_main(main, MarginArguments, __doc__)
