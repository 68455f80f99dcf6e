"""One of two processes, of which the main one cannot make the folder of a checkpoint: both are to fail alike."""

import shutil
import sys
from datetime import timedelta
from pathlib import Path

import torch

from cosify.training.checkpoint import Checkpoints, Progress
from cosify.training.run_folder import RunFolder
from cosify.training.session import start_processes

if __name__ == "__main__":
    folder, accelerator = Path(sys.argv[1]), start_processes(timedelta(seconds=10))
    if accelerator.is_main_process:
        run = RunFolder.create(folder / "run", {})
        shutil.rmtree(run.checkpoints)  # in the place of a full disk
    else:
        run = RunFolder(folder / "run")
    accelerator.wait_for_everyone()
    try:
        Checkpoints(accelerator, run).save(Progress(step=1))
    except OSError as error:
        (folder / f"rank{accelerator.process_index}.txt").write_text(str(error))
    torch.distributed.destroy_process_group()
