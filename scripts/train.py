"""Train an image classifier whose softmax temperature estimates itself.

Nothing named, it trains on the digits of scikit-learn, on the CPU or one GPU, in about half a minute:

    python scripts/train.py

See that everything works, in seconds:

    python scripts/train.py --smoke

Other heads: the stock softmax, a fixed kappa, a trainable one:

    python scripts/train.py --head linear
    python scripts/train.py --kappa 20
    python scripts/train.py --kappa trainable

Your own images, as train/CLASS/*.png and test/CLASS/*.png, or as train.parquet and test.parquet, and any timm model:

    python scripts/train.py --data FOLDER --model resnet18_cifar --model-kwargs width=0.25 --epochs 10

Several GPUs of this machine, and several processes on the CPU:

    accelerate launch --config_file scripts/accelerate/ddp.yaml scripts/train.py    # or fsdp2.yaml
    torchrun --nproc_per_node 2 scripts/train.py

Many settings at once, from a recipe, and single ones of a recipe:

    python scripts/train.py --config scripts/recipes/digits.yaml
    python scripts/train.py --set label_smoothing=0.1 ema_decay=0.999

Go on with a run that was stopped, by Ctrl-C, a signal, or a power cut, also on another number of processes:

    python scripts/train.py --resume RUN

The run folder then holds config.json, metrics.jsonl, environment.json, trackers/, checkpoints/, kappa_trace.png, and in
export/ the model: with a cosine head and a stock architecture, stock timm and stock transformers open it too.
"""

from cosify.command import run_script
from cosify.training.arguments import TrainArguments
from cosify.training.parse import parse_arguments


def main(args: TrainArguments) -> None:
    """Train, export, draw, summarise."""
    from cosify.training import train

    run_script(train, args)


if __name__ == "__main__":
    main(parse_arguments(TrainArguments, description=__doc__))
