"""The card of a published model.  Every number comes from a file beside it; a missing fact is an error."""

from collections.abc import Sequence
from importlib.resources import files

from cosify.cards.command_lines import training_command
from cosify.cards.facts import USES
from cosify.cards.info import CardInfo
from cosify.cards.metadata import front_matter
from cosify.cards.records import AgainstStart
from cosify.cards.same_data import refuse_different_tests
from cosify.errors import InputError
from cosify.evaluation import Table, tables_of
from cosify.evaluation.transferability import standard_error
from cosify.functional import kappa_grid
from cosify.heads.kappa_statistics import KappaSummary
from cosify.hub.contents import RELIABILITY, TRACE
from cosify.hub.readers import is_own_architecture


def family_table(siblings: Sequence[CardInfo], this: str = "") -> Table:
    """Return the models of a family side by side.

    Args:
        siblings: in the order to show.
        this: name of the model to mark as this one.

    Raises:
        ValueError: if they were measured on different images, or compared with different starts.
    """
    refuse_different_tests(siblings)
    tasks = list(dict.fromkeys(task for each in siblings for task in each.probes))
    tuned = list(dict.fromkeys(task for each in siblings for task in each.tuned))
    beside = {found.task: found for each in siblings for found in each.compared}
    header = ["model", "for", "kappa", "top-1 %", "errors, AP of z_max", "errors, AP of p"]
    header += [*(f"probe {task} %" for task in tasks), *(f"fine-tuned {task} %" for task in tuned)]
    header += [*(f"{found.per_class} images a class, {task} %" for task, found in beside.items()), "MB"]
    rows = []
    if beside:
        same = {
            (found.begun_with, found.task, found.per_class, found.start) for each in siblings for found in each.compared
        }
        if len(same) > len(beside) or len({start for start, *_ in same}) > 1:
            raise InputError(
                f"the family was compared with different starts: {sorted(same)}; compare it anew, together"
            )
        start = next(iter(beside.values())).begun_with
        unknown = ["-"] * (len(header) - len(beside) - 3)
        rows.append((start, "its start", *unknown, *(f"{100 * found.start:.1f}" for found in beside.values()), "-"))
    for each in siblings:
        miss, accuracy = each.assessment.miss, each.assessment.accuracy
        error = standard_error(accuracy, each.assessment.num_test)
        cells = [
            f"{each.name}{' (this one)' if each.name == this else ''}",
            each.facts.use,
            "-" if each.head_kappa is None else f"{each.head_kappa:.2f}",
            with_error(100 * accuracy, 100 * error),
            *(f"{miss[score].ap:.3f}" if score in miss else "-" for score in ("z_max", "msp")),
            *(with_error(*each.probes[task]) if task in each.probes else "-" for task in tasks),
            *(with_error(*each.tuned[task]) if task in each.tuned else "-" for task in tuned),
            *(next((gain(found) for found in each.compared if found.task == task), "-") for task in beside),
            f"{each.measured.num_bytes / 1e6:.1f}",
        ]
        rows.append(tuple(cells))
    note = (
        "The paper takes kappa* to reject, twice kappa* to classify, and 60 to transfer. One seed each, with standard"
        " errors: smaller differences are chance. z_max is the largest cosine, p the largest probability; AP of right"
        " predictions against wrong ones."
    )
    if beside:
        note += (
            " Few images: a probe fits on so many images of each class and all others test it, a mean over probes; in"
            " brackets the difference to the start, paired by probe and by image."
        )
    return Table("Which one do I want", note, tuple(header), tuple(rows))


def gain(found: AgainstStart) -> str:
    """Return the accuracy on few images, and how far it is from that of the start."""
    return f"{100 * found.top1:.1f} ({100 * found.difference:+.1f} ± {100 * found.standard_error:.1f})"


def with_error(value: float, error: float) -> str:
    """Return a percentage with its standard error."""
    return f"{value:.1f} ± {error:.1f}"


def against_baseline(info: CardInfo, siblings: Sequence[CardInfo]) -> list[str]:
    """Return sentences that compare transfer with that of the softmax baseline, if the family has one."""
    sentences, gains = [], []
    for other in siblings:
        if other.facts.use != "baseline" or other.name == info.name:
            continue
        pairs = (("Linear probe", info.probes, other.probes), ("Fine-tuning", info.tuned, other.tuned))
        for scenario, own, base in pairs:
            for task in [task for task in own if task in base]:
                gap = own[task][0] - base[task][0]
                error = (own[task][1] ** 2 + base[task][1] ** 2) ** 0.5
                verdict = "above it" if gap > 2 * error else "below it" if gap < -2 * error else "no difference to see"
                sentences.append(f"{scenario} on {task}: {gap:+.1f} ± {error:.1f} points to {other.name}, {verdict}.")
                gains.append(gap > 2 * error)
    if info.facts.use == "transfer" and gains and not all(gains):
        sentence = (
            "The paper's large kappa beats softmax in every probe and every fine-tuning (Tables 4a, 4b), this one does"
            " not."
        )
        if info.facts.base_model is None:
            sentence += " In a sweep on digits (cosify's results) the lead of softmax is gone with more weight decay."
        sentences.append(sentence)
    return sentences


def kappa_shares(summary: KappaSummary) -> Table:
    """Return the share of samples at each candidate of Eq. (14); candidates without samples are left out."""
    total = sum(summary.histogram)
    found = [(kappa, count) for kappa, count in zip(kappa_grid().tolist(), summary.histogram, strict=True) if count > 0]
    shares = ("% of the images", *(f"{100 * count / total:.2f}" for _, count in found))
    return Table("", "", ("kappa*", *(f"{kappa:.2f}" for kappa, _ in found)), (shares,))


def render(info: CardInfo, siblings: Sequence[CardInfo]) -> str:
    """Return the card, README.md with its front matter.

    Args:
        info: of the model.
        siblings: models of its family, itself included, in the order to show.

    Raises:
        ValueError: if the front matter lacks what the hub asks for.
    """
    import jinja2
    from huggingface_hub import ModelCard

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("cosify.cards").joinpath("template.md").read_text(encoding="utf-8"))
    body = template.render(
        info=info,
        family=family_table(siblings, info.name),
        comparisons=against_baseline(info, siblings),
        shares=kappa_shares(info.assessment.scan.kappa),
        tables=tables_of([info.assessment])[1:],  # without accuracy and kappa, which the text has
        command=training_command(info.run),
        own_architecture=is_own_architecture(info.config),
        purpose=USES[info.facts.use],
        pictures={"Course of the training": TRACE, "Reliability on every second test image": RELIABILITY},
    )
    text = f"---\n{front_matter(info)}\n---\n\n{body.strip()}\n"
    ModelCard(text, ignore_metadata_errors=False)  # raises where the model-index is malformed
    return text
