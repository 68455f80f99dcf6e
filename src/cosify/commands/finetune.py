"""Fine-tune a backbone on your pictures, with a new head.

    cosify finetune tf_efficientnet_lite0.cos_2ls_in1k_ft_tinyin200 FOLDER
    cosify finetune RUN FOLDER --head cos     a cosine head for the new classes
    cosify finetune RUN FOLDER --blocks 2     the head and the last two stages
    cosify finetune --resume RUN              after Ctrl-C, a signal, a power cut

MODEL is a run of `cosify train` (or its export/), a folder of cosify.save, hf-hub:ORG/NAME, or a timm name:

    cosify finetune hf-hub:ORG/NAME FOLDER
    cosify finetune resnet50 FOLDER --head cos

Several GPUs, or several processes on the CPU:

    accelerate launch -m cosify finetune MODEL FOLDER
    torchrun --nproc-per-node 2 -m cosify finetune MODEL FOLDER

See that everything works, in seconds:

    cosify finetune --smoke

Images are scaled and normalised as the backbone expects.  Batch norms of frozen stages keep their statistics.  The run
folder holds the same files as that of `cosify train`.
"""

from cosify.console import Command
from cosify.settings.training import FinetuneArguments


def main(args: FinetuneArguments) -> None:
    """Fine-tune, export, draw, summarise."""
    from cosify.console.training import run_training
    from cosify.training import finetune

    run_training(finetune, args)


COMMAND = Command(
    main,
    FinetuneArguments,
    __doc__,
    words=("model", "data"),
    needed=("data",),
    shown=("model", "data", "head", "kappa", "blocks", "image_size", "epochs", "batch_size", "lr", "output"),
)
