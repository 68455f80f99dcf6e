"""Say how well a model tells pairs of one person from pairs of two.

    cosify verify MODEL FOLDER --pairs lfw
    cosify verify MODEL FOLDER --pairs pairs.csv
    cosify verify MODEL agedb_30.bin
    cosify verify --smoke

MODEL is a run, a folder, a published backbone, a timm name, or hf-hub:ORG/NAME; its features are compared, not its
classes.  DATA holds aligned faces of one size.  It is a folder of pictures, in folders below it too, or of parquet
files with the columns image and image_id; --pairs names the list.  lfw is FOLDER/pairs.txt, with names of files
without ending, such as Aaron_Peirsol_0001.  cfp-fp (frontal with profile) and cfp-ff are FOLDER/Protocol.  A .txt file
is a list in LFW's format; it or a .csv may also hold lines such as a.jpg,b.jpg,1: paths in FOLDER, and 1 for one
person.  Or DATA is a file of pictures and pairs: .bin of insightface, or the .parquet that cosify convert-bin makes of
it.

The protocol is that of LFW and insightface: features of a picture plus those of its mirror image, normalised; ten
folds in the order of the list, the threshold of each from the other nine, among insightface's 400.  A second accuracy
is that of exact thresholds: 400 are coarse where all cosines are alike.  True accepts at a rate of false ones are of
one threshold for all pairs, as in the protocol of IJB; insightface sets one for each fold.  The folder of the result
then holds verification.json and verification.png; cosify card --verification adds it to a card.
"""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosify.console import Command, set_up_logging, show, two_columns, typed
from cosify.settings import AT_LEAST_1, FROM_0, Rule, flag, resolved

if TYPE_CHECKING:
    from cosify.evaluation import Verification

logger = logging.getLogger("cosify")


@dataclass(frozen=True)
class VerifyArguments:
    """Settings of one verification."""

    model: str = flag("", "The model. Needed, except with --smoke.")
    data: str = flag("", "Folder of pictures, .bin or .parquet file. Needed, except with --smoke.")
    pairs: str | None = flag(None, "List for a folder: lfw, cfp-fp, cfp-ff, .txt or .csv. Default: that in the file.")
    folds: int | None = flag(
        None,
        "Folds of a CSV, .bin or .parquet file. LFW's and CFP's lists say it themselves. Default 10.",
        Rule(lambda value: value >= 2, "at least 2"),
    )
    image_size: int | None = flag(None, "Side in pixels. Default: the model's own.", AT_LEAST_1)
    batch_size: int | None = flag(None, "Pictures in a batch. Default 256, on a CPU 8 to 32.", AT_LEAST_1)
    num_workers: int | None = flag(None, "Processes that decode pictures. Default: by cores.", FROM_0)
    output: str | None = flag(None, "Folder of the result. Default: a new runs/DATE-DATA-MODEL-verify.")
    overwrite: bool = flag(False, "Replace an earlier result there. Default: refuse.")
    smoke: bool = flag(False, "A small random model on synthetic pairs. Default: off.")


def main(args: VerifyArguments) -> None:
    """Pass, compare, report."""
    from rich import get_console

    from cosify.data import open_pairs, short_name, synthetic_pairs
    from cosify.evaluation import FeaturePass, check_folds, pair_cosines, verify_pairs
    from cosify.files import write_json
    from cosify.folders import model_name, new_output, refuse_results
    from cosify.models.network_identity import model_digest
    from cosify.plots import plot_verification
    from cosify.training.environment import describe_environment
    from cosify.training.opener import open_model
    from cosify.training.session import device_of_one

    set_up_logging()
    device = device_of_one("verify")
    if args.smoke:
        args = replace(args, data="synthetic")
    name, data = model_name(args.model), title_of(short_name(args.data), args.pairs)
    output = new_output(args.output, args.data, f"{name}-verify")
    refuse_results(output / "verification.json", ("verification.png",), overwrite=args.overwrite)
    model, preprocessing = open_model(args.model, args.image_size, smoke=args.smoke)
    pairs = synthetic_pairs() if args.smoke else open_pairs(args.data, args.pairs, num_folds=args.folds)
    check_folds(pairs.same, pairs.num_folds)
    run = FeaturePass(args.batch_size, args.num_workers, show_progress=get_console().is_terminal)
    cosine = pair_cosines(model.to(device), pairs, preprocessing, run)
    found, exact = (
        verify_pairs(cosine, pairs.same, num_folds=pairs.num_folds, thresholds=thresholds)
        for thresholds in ("grid", "exact")
    )
    output.mkdir(parents=True, exist_ok=True)
    plot_verification(cosine, pairs.same, found, output / "verification.png", title=f"{name} on {data}")
    record = {
        "command": typed("verify"),
        "environment": describe_environment(device, 1),
        "arguments": resolved(args),
        "model": model_digest(model),
        "data": data,
        "num_pictures": pairs.images.num_test,
        "verification": asdict(found),
        "exact_thresholds": asdict(exact),
    }
    write_json(output / "verification.json", record)
    show(two_columns(f"{name} on {data}", summary(found, exact, len(pairs.images.test), output)))


def title_of(data: str, pairs: str | None) -> str:
    """Return the name of pairs: that of the pictures, and of their list, as one folder may have several."""
    listed = "" if pairs is None else Path(pairs).stem
    return listed if listed.startswith(data) else f"{data}, {listed}" if listed else data


def summary(found: "Verification", exact: "Verification", num_pictures: int, folder: Path) -> dict[str, Any]:
    """Return the rows of the table that ends the command."""
    return {
        "pairs": f"{found.num_same} of one person, {found.num_different} of two; {num_pictures} pictures",
        "accuracy": f"{found.accuracy:.2%} ± {found.standard_error:.2%}, mean and standard error",
        "with exact thresholds": f"{exact.accuracy:.2%} ± {exact.standard_error:.2%}",
        "standard deviation of folds": f"{found.deviation:.2%}, of {len(found.fold_accuracies)}",
        "threshold, cosine": f"{min(found.fold_thresholds):.3f} to {max(found.fold_thresholds):.3f}",
        "AUC": f"{found.auc:.4f}",
        "equal error rate": f"{found.eer:.2%}",
        **{f"true accepts at {rate:g} false": f"{share:.2%}" for rate, share in found.tar.items()},
        "folder": folder,
    }


COMMAND = Command(main, VerifyArguments, __doc__, words=("model", "data"), needed=("data",))
