"""Train a tiny cosine model a little, save it, and leave images, logits and labels beside it."""

import sys
from pathlib import Path

import timm
import torch
import torch.nn.functional as F

import cosify

NAMES = ["ant", "bee", "cat", "dog", "elk"]


def main(folder: str, kappa: str | float = "ls") -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", head="cos", kappa=kappa, num_classes=len(NAMES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    patterns, y = torch.randn(len(NAMES), 3, 64, 64), torch.arange(10) % len(NAMES)
    x = patterns[y] + 0.3 * torch.randn(10, 3, 64, 64)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    images = patterns[torch.arange(32) % len(NAMES)] + torch.randn(32, 3, 64, 64)
    with torch.no_grad():
        logits = model(images)
    cosify.save(model, folder, label_names=NAMES)
    expected = {"images": images, "logits": logits, "labels": logits.argmax(1), "kappa": model.fc.kappa}
    torch.save(expected, Path(folder) / "expected.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
