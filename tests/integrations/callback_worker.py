"""One rank of a Trainer with `KappaCallback`: writes what it logged, and every kappa that its head saw."""

import json
import sys
from pathlib import Path

import torch

import cosify
from tests.integrations.trainers import SeenKappa, trainer_of

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    seen = SeenKappa()
    trainer = trainer_of(folder / "run", "ls", callbacks=[cosify.KappaCallback(), seen], max_steps=4, logging_steps=2)
    trainer.train()
    rank = torch.distributed.get_rank()
    logged = [row for row in trainer.state.log_history if "kappa_mean" in row]
    (folder / f"rank-{rank}.json").write_text(json.dumps({"logged": logged, "seen": [k.tolist() for k in seen.kappas]}))
    torch.distributed.destroy_process_group()
