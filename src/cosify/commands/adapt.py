"""Give a softmax-pretrained model a cosine head, and train on.

    cosify adapt resnet50 FOLDER
    cosify adapt RUN FOLDER --kappa 60
    cosify adapt RUN FOLDER --kappa 10 --blocks 1     the last stage alone
    cosify adapt --resume RUN                         after Ctrl-C, a power cut

The paper calls this "cosify" (Section 4.4), and finds that for a small kappa the last stage alone is enough.  MODEL is
a timm model with weights, the run of a softmax head, a folder, or hf-hub:ORG/NAME.  So that little is forgotten,
batch norms keep their statistics (freeze_norms); for another number of classes the model gets a new classifier, which
is trained alone first (head_start).

Train the head alone; start from the ImageNet weights of the extra cosify[demo], which need no hub:

    cosify adapt RUN FOLDER --kappa 10 --blocks head
    cosify adapt efficientnet-lite0 FOLDER --image-size 64

Several GPUs, or several processes on the CPU:

    accelerate launch -m cosify adapt MODEL FOLDER
    torchrun --nproc-per-node 2 -m cosify adapt MODEL FOLDER

See that everything works, in seconds:

    cosify adapt --smoke

If the model has as many classes as the data, its accuracy is measured first; the run stops with a message once it
falls more than --max-drop below that.  kappa* of the start weights is printed before the first step.
"""

from cosify.console import Command
from cosify.settings.training import CosifyArguments


def main(args: CosifyArguments) -> None:
    """Convert, train, export, draw, summarise."""
    from cosify.console.training import run_training
    from cosify.training import cosify_pretrained

    run_training(cosify_pretrained, args)


COMMAND = Command(
    main,
    CosifyArguments,
    __doc__,
    words=("model", "data"),
    needed=("data",),
    shown=("model", "data", "kappa", "blocks", "max_drop", "image_size", "epochs", "batch_size", "lr", "output"),
)
