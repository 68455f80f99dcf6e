"""Train an image classifier whose temperature estimates itself.

    cosify train                          the digits of scikit-learn: half a minute
    cosify train FOLDER                   train/CLASS/*.jpg and test/CLASS/*.jpg
    cosify train FOLDER --model resnet50 --pretrained --lr 0.01
    cosify train FOLDER --kappa 20        a fixed kappa; --head linear: softmax
    cosify train --resume RUN             after Ctrl-C, a signal, a power cut

Several GPUs of this machine, or several processes on the CPU; a checkout has configurations in scripts/accelerate:

    accelerate launch -m cosify train FOLDER
    torchrun --nproc-per-node 2 -m cosify train FOLDER

Many settings at once from a recipe, and single keys of one:

    cosify train --config scripts/recipes/digits.yaml
    cosify train --set label_smoothing=0.1 ema_decay=0.999

See that everything works, in seconds:

    cosify train --smoke

The run folder then holds config.json, metrics.jsonl, environment.json, trackers/, checkpoints/, kappa_trace.png, and in
export/ the model.  If its architecture is one of timm's own, timm and transformers open it without cosify too.
"""

from cosify.console import Command
from cosify.settings.training import TrainArguments


def main(args: TrainArguments) -> None:
    """Train, export, draw, summarise."""
    from cosify.console.training import run_training
    from cosify.training import train

    run_training(train, args)


COMMAND = Command(
    main,
    TrainArguments,
    __doc__,
    words=("data",),
    shown=("data", "model", "pretrained", "kappa", "head", "image_size", "epochs", "batch_size", "lr", "output"),
)
