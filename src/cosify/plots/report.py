"""An evaluation as JSON, as markdown, and as one HTML file that needs no other file."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from cosify.evaluation.in_words import DEFAULT_SCORE, THRESHOLD, told_by, verdict
from cosify.evaluation.scores import SCORES
from cosify.evaluation.tables import tables_of
from cosify.evaluation.terms import meaning, meanings
from cosify.files import write_whole
from cosify.plots.examples import Examples
from cosify.plots.figures import Figure, Subject

NAMES = ("evaluation.json", "evaluation.md", "report.html")


def write_report(
    subjects: Sequence[Subject],
    figures: Sequence[Figure],
    folder: Path,
    facts: Mapping[str, Any],
    examples: Examples | None = None,
) -> tuple[Path, ...]:
    """Write evaluation.json, evaluation.md and report.html.

    Args:
        subjects: models with what was measured, on the same sets.
        figures: of these models.
        folder: where the files go.
        facts: command, data and environment, ready for JSON; they stand in evaluation.json.  Lines that they have
            under `notes`, by model, come first in what is said of it.
        examples: pictures; None to leave them out.

    Returns:
        The three files.
    """
    import jinja2

    assessments = [each.assessment for each in subjects]
    tables = tables_of(assessments)
    record = {**facts, "models": [asdict(each) for each in assessments]}
    command = str(facts["command"])
    score = next((each.rejector.score for each in subjects if each.rejector is not None), DEFAULT_SCORE)
    notes = facts.get("notes", {})
    verdicts = {each.model: (*notes.get(each.model, ()), *verdict(each, score)) for each in assessments}
    said = "".join(f"**{model}**\n\n" + "".join(f"- {line}\n" for line in verdicts[model]) + "\n" for model in verdicts)
    text = f"# Evaluation\n\n{said}{THRESHOLD}\n\n`{command}`\n\n" + "\n".join(table.markdown() for table in tables)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("cosify.plots").joinpath("report.html").read_text(encoding="utf-8"))
    pictures = [
        {
            "title": each.title,
            "caption": each.caption,
            "width": _width(each.file),
            "data": base64.b64encode(each.file.read_bytes()).decode(),
        }
        for each in figures
    ]
    page = template.render(
        title=f"{', '.join(each.model for each in assessments)} on {facts['data']}",
        verdicts=verdicts,
        threshold=THRESHOLD,
        score=SCORES[told_by(assessments[0], score)].title,
        tables=tables,
        meaning=meaning,
        meanings=meanings,
        figures=pictures,
        examples=examples,
        command=command,
        environment=facts["environment"],
        scans=[each.scan for each in assessments],
        models=[each.model for each in assessments],
    )
    paths = tuple(folder / name for name in NAMES)
    for path, content in zip(paths, (json.dumps(record, indent=2) + "\n", text, page), strict=True):
        write_whole(path, content)
    return paths


def _width(file: Path) -> int:
    """Return the width of a picture in pixels."""
    from PIL import Image

    with Image.open(file) as image:
        return image.width
