"""Assessments as tables, for markdown and HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cosify.evaluation.assessment import Assessment
from cosify.evaluation.detection_metrics import Detection, Interval
from cosify.evaluation.in_words import few, positives
from cosify.evaluation.scores import SCORES
from cosify.evaluation.transferability import standard_error


@dataclass(frozen=True)
class Table:
    """A table with its title, and a note on how to read it."""

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, str]]) -> "Table":
        """Return rows that have the same columns, at least one, without title and note."""
        return cls("", "", tuple(rows[0]), tuple(tuple(row.values()) for row in rows))

    def markdown(self, level: int = 2) -> str:
        """Return title, note and rows as markdown, the title as a heading of `level`."""
        return f"{'#' * level} {self.title}\n\n{self.note}\n\n{self.lines()}\n"

    def lines(self) -> str:
        """Return header and rows as markdown."""
        lines = [self.header, tuple("---" for _ in self.header), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def tables_of(assessments: Sequence[Assessment]) -> list[Table]:
    """Return the tables of models that were measured on the same sets."""
    tables = [_models(assessments), _diversity(assessments)]
    if any(each.long_tail for each in assessments):
        tables.append(_long_tail(assessments))
    if any(each.miss for each in assessments):
        title = "Misclassified samples (Fig. 4a)"
        tables.append(_detection(title, "right predictions", assessments, [each.miss for each in assessments]))
    for name in assessments[0].ood:
        title = f"Outliers: {name} (Fig. 4b)"
        found = [each.ood[name] for each in assessments]
        tables.append(_detection(title, positives(assessments[0]), assessments, found))
    if any(each.calibration for each in assessments):
        tables.append(_calibration(assessments))
    if assessments[0].transfer:
        tables.append(_transfer(assessments))
    return tables


def _models(assessments: Sequence[Assessment]) -> Table:
    rows = []
    for each in assessments:
        scan = each.scan
        rows.append(
            (
                each.model,
                f"{each.accuracy:.2%} ± {standard_error(each.accuracy, each.num_test):.2%}",
                f"{each.mean_per_class:.2%}",
                scan.head,
                "per sample" if scan.eval_kappa == "sample" else _number(scan.head_kappa),
                f"{scan.kappa.mean:.2f}",
                f"{scan.kappa.median:.2f}",
                f"{scan.kappa.low_edge:.1%}, {scan.kappa.high_edge:.1%}",
            )
        )
    return Table(
        "Accuracy and kappa",
        f"Top-1 on {assessments[0].num_test} test images, with its standard error. kappa* is LS (Eq. 11) over these"
        " images, whatever the head was trained with. A head's own kappa is the running mean of its training batches,"
        " a number that was fitted or, where it says so, that of each sample.",
        ("model", "accuracy", "mean per class", "head", "its kappa", "kappa* mean", "median", "at edges"),
        tuple(rows),
    )


def _long_tail(assessments: Sequence[Assessment]) -> Table:
    rows = []
    counts: set[tuple[int, int, int]] = set()
    for each in assessments:
        for name, found in (each.long_tail or {}).items():
            shares = (found.accuracy, found.mean_per_class, found.many, found.medium, found.few)
            rows.append((each.model, name, *("no such class" if share is None else f"{share:.2%}" for share in shares)))
            counts.add(found.num_classes)
    sizes = " or ".join(f"{many}, {medium} and {few}" for many, medium, few in sorted(counts))
    return Table(
        "Classes with many, medium and few training images (Table 7)",
        f"Means over the classes with more than 100, 20 to 100 and fewer than 20 training images (Kang et al. 2020):"
        f" {sizes} classes. Logits adjusted: less the logarithm of the classes' shares of the training images (Menon et"
        " al. 2021), which corrects a model a second time that was trained with a balance. tau = 1: softmax weights of"
        " one norm, without bias.",
        ("model", "correction", "accuracy", "mean per class", "many", "medium", "few"),
        tuple(rows),
    )


def _diversity(assessments: Sequence[Assessment]) -> Table:
    first = assessments[0].scan.diversity
    num_zero = max(each.scan.diversity.num_zero for each in assessments)
    return Table(
        "Feature diversity (Table 3)",
        f"Angles in degrees, over {first.num_samples} test images, without {num_zero} zero features. Rank: singular"
        f" values of the unit features above {first.rtol:.3g} of the largest; effective rank and 99 % of the variance:"
        " of the centred ones, so that the effective rank may exceed the rank.",
        (
            "model",
            "to own class",
            "to the span of W",
            "dimension of the span",
            "rank",
            "effective rank",
            "99 % PCs",
            "d",
        ),
        tuple(
            (
                each.model,
                _number(each.scan.diversity.mean_class_angle_deg),
                _number(each.scan.diversity.mean_span_angle_deg),
                str(each.scan.diversity.span_dim),
                str(each.scan.diversity.numerical_rank),
                _number(each.scan.diversity.effective_rank),
                "-" if each.scan.diversity.num_pc_99 is None else str(each.scan.diversity.num_pc_99),
                str(each.scan.diversity.dim),
            )
            for each in assessments
        ),
    )


def _detection(
    title: str, accepted: str, assessments: Sequence[Assessment], by_score: Sequence[Mapping[str, Detection]]
) -> Table:
    rows = []
    for name, score in SCORES.items():
        for each, of_model in zip(assessments, by_score, strict=True):
            if name in of_model:
                found = of_model[name]
                rows.append(
                    (
                        score.title,
                        each.model,
                        _with(found.ap, found.ap_interval) + (f", only {few(found)}" if few(found) else ""),
                        _with(found.auroc, found.auroc_interval),
                        f"{found.fpr95_id_positive:.3f}",
                        f"{found.fpr95_ood_positive:.3f}",
                        f"{found.aupr_in:.3f}",
                        f"{found.aupr_out:.3f}",
                        f"{found.num_positive} / {found.num_negative}",
                    )
                )
    return Table(
        title,
        f"Positives: {accepted}; AP depends on the counts, AUROC does not. In brackets 95 % bootstrap intervals."
        " FPR95: of negatives accepted with 95 % of the positives; and of positives rejected with 95 % of the negatives"
        " (OpenOOD, pytorch-ood).",
        (
            "score",
            "model",
            "AP",
            "AUROC",
            "FPR95",
            "FPR95, outliers positive",
            "AUPR-in",
            "AUPR-out",
            "positives / negatives",
        ),
        tuple(rows),
    )


def _calibration(assessments: Sequence[Assessment]) -> Table:
    rows = [
        (
            each.model,
            name,
            "per sample" if name == "sample" else _number(found.kappa),
            f"{found.ece:.4f}",
            f"{found.adaptive_ece:.4f}",
            f"{found.nll:.4f}",
            f"{found.brier:.4f}",
            f"{found.mean_confidence:.4f}",
            f"{found.accuracy:.4f}",
        )
        for each in assessments
        for name, found in each.calibration.items()
    ]
    return Table(
        "Calibration by test-time kappa",
        "Measured on every second test image; what is fitted, on the others. The factor is kappa of a cosine head, one"
        " over the temperature of a stock one. ECE: 15 bins.",
        ("model", "kappa", "factor", "ECE", "adaptive ECE", "NLL", "Brier", "confidence", "accuracy"),
        tuple(rows),
    )


def _transfer(assessments: Sequence[Assessment]) -> Table:
    names = list(assessments[0].transfer)
    rows = []
    for each in assessments:
        cells = [each.model]
        for name in names:
            found = each.transfer[name]
            cells += [f"{found.probe.top1:.2%} ± {found.standard_error:.2%}", f"{found.probe.mean_per_class:.2%}"]
            cells.append(f"{found.knn_top1:.2%}")
        rows.append(tuple(cells))
    protocols = "; ".join(f"{name}: {assessments[0].transfer[name].protocol}" for name in names)
    columns = [f"{name}, {metric}" for name in names for metric in ("probe", "mean per class", "5-NN")]
    return Table(
        "Transfer (Table 4a)",
        "Logistic regression on frozen features, lambda chosen on a held-out part of the training images; top-1 with"
        f" its standard error. {protocols}.",
        ("model", *columns),
        tuple(rows),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _with(value: float, interval: Interval) -> str:
    return f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
