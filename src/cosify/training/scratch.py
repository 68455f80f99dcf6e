"""Training from scratch, or from timm's pretrained weights."""

from cosify.settings.training import TrainArguments
from cosify.training.loop import fit
from cosify.training.model import ModelChoice, build_model, preprocessing_of
from cosify.training.result import TrainResult
from cosify.training.resumed import as_begun
from cosify.training.session import Session


def train(args: TrainArguments) -> TrainResult:
    """Train a classifier and write the run folder, except for `export/`.

    Args:
        args: the settings; with `resume`, those of the run that goes on.

    Raises:
        ValueError: for data, model or settings that do not work; the message says what to change.
        OSError: if the run folder is in use, or a file cannot be written.
        Interrupted: after SIGINT or SIGTERM, and a checkpoint.
    """
    args = as_begun(args)
    choice = ModelChoice.of(args)
    head = args.kappa if args.head == "cos" else "softmax"
    session = Session.open(args, f"{choice.name}-{head}", preprocessing_of(choice, pretrained=args.pretrained))
    data = session.data
    model = build_model(choice, args, len(data.label_names), data.image_shape[0], data.image_shape[1:])
    return fit(session, model, more_config={"model": choice.name, "model_kwargs": choice.kwargs, "head": head})
