"""Fine-tune a published or local backbone on a new task, with a new softmax or cosine head.

See that everything works, in seconds:

    python scripts/finetune.py --smoke

From the run folder (or its export/) of scripts/train.py, a folder of cosify.save, the hub, or timm:

    python scripts/finetune.py --model RUN --data FOLDER
    python scripts/finetune.py --model hf-hub:ORG/NAME --data FOLDER
    python scripts/finetune.py --model resnet50 --data FOLDER --head cos

Only the head and the last two stages; batch norms of the frozen ones stay as they are:

    python scripts/finetune.py --model RUN --data FOLDER --blocks 2

Several GPUs, several processes on the CPU, and going on with a run that was stopped:

    accelerate launch --multi_gpu --num_processes 2 scripts/finetune.py --model RUN --data FOLDER
    torchrun --nproc_per_node 2 scripts/finetune.py --model RUN --data FOLDER
    python scripts/finetune.py --resume RUN

Images are scaled and normalised as the backbone expects.  The run folder is that of scripts/train.py.
"""

from cosify.command import run_script
from cosify.training.arguments import FinetuneArguments
from cosify.training.parse import parse_arguments


def main(args: FinetuneArguments) -> None:
    """Fine-tune, export, draw, summarise."""
    from cosify.training import finetune

    run_script(finetune, args)


if __name__ == "__main__":
    main(parse_arguments(FinetuneArguments, description=__doc__))
