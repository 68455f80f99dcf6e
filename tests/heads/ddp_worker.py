"""One rank of the DDP contract test: three steps on its half of the data, then its state to a file."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cosify.heads import CosineLinear


def main(folder: str, kappas: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    states = {}
    for kappa in kappas.split(","):
        torch.manual_seed(0)
        head = CosineLinear(16, 7, kappa=float(kappa) if kappa.replace(".", "").isdigit() else kappa)
        model = DistributedDataParallel(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), head))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        generator = torch.Generator().manual_seed(rank)
        for _ in range(3):
            optimizer.zero_grad()
            x, y = torch.randn(6, 16, generator=generator), torch.randint(7, (6,), generator=generator)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        states[kappa] = model.module.state_dict()
    torch.save(states, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
