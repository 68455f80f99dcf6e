"""Give a softmax-pretrained model a cosine head and train on, as Section 4.4 of the paper does.

See that everything works, in seconds:

    python scripts/cosify_pretrained.py --smoke

Any timm model with weights, the run folder of a softmax run, a folder, or the hub; kappa by LS, or fixed:

    python scripts/cosify_pretrained.py --model resnet50 --data FOLDER
    python scripts/cosify_pretrained.py --model RUN --data FOLDER --kappa 60

Train the last stage alone (the paper: enough for a small kappa), or nothing but the head:

    python scripts/cosify_pretrained.py --model RUN --data FOLDER --kappa 10 --blocks 1
    python scripts/cosify_pretrained.py --model RUN --data FOLDER --kappa 10 --blocks head

Without a hub, from the ImageNet weights that the extra cosify[demo] brings:

    python scripts/cosify_pretrained.py --model efficientnet-lite0 --data FOLDER --image-size 64

Several GPUs, and going on with a run that was stopped:

    accelerate launch --multi_gpu --num_processes 2 scripts/cosify_pretrained.py --model RUN --data FOLDER
    torchrun --nproc_per_node 2 scripts/cosify_pretrained.py --model RUN --data FOLDER
    python scripts/cosify_pretrained.py --resume RUN

Where the classes are those of the model, its own accuracy is measured first, and the run stops with a message when it
falls more than --max-drop below.  kappa* of the start weights is printed before the first step.
"""

from cosify.command import run_script
from cosify.training.arguments import CosifyArguments
from cosify.training.parse import parse_arguments


def main(args: CosifyArguments) -> None:
    """Convert, train, export, draw, summarise."""
    from cosify.training import cosify_pretrained

    run_script(cosify_pretrained, args)


if __name__ == "__main__":
    main(parse_arguments(CosifyArguments, description=__doc__))
