"""The report as a page: its order, that names cannot break out of their place, that nothing outside is needed."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from cosify.evaluation import Rejector, assess, verdict
from cosify.plots import Example, ExampleGroup, Examples, Figure, Subject, plot_reliability, write_report
from tests.evaluation.caches import make_cache

EVIL = "<script>alert(1)</script>\" onerror='x' {{ 7*7 }} & <b>"
FACTS = {
    "command": f"python scripts/evaluate.py {EVIL}",
    "data": EVIL,
    "environment": {
        "platform": EVIL,
        "device": "cpu",
        "python": "3",
        "packages": {"torch": "2"},
        "commit": None,
    },
}
PIXEL = "data:image/png;base64,AAAA"


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(folder: Path, *, evil: str = EVIL, examples: Examples | None = None) -> str:
    test = make_cache(300, seed=2, spread=1.0)
    test = dataclasses.replace(test, info=dataclasses.replace(test.info, label_names=(evil, "b", "c", "d")))
    far = make_cache(labels=torch.full((80,), -1), seed=3)
    subject = Subject(assess(evil, test, ood={evil: far}, exclude_classes=[0], resamples=100), test, {evil: far}, None)
    file = plot_reliability({"m": (test.max_probability, test.correct)}, folder / "figure.png")
    write_report([subject], [Figure(file, evil, evil)], folder, FACTS, examples)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    shown = Example(PIXEL, EVIL, EVIL, EVIL, 0.5, small=True)
    examples = Examples(
        (ExampleGroup(EVIL, (shown,)), ExampleGroup("second", (dataclasses.replace(shown, truth=None),))), EVIL
    )
    return page_of(tmp_path_factory.mktemp("page"), examples=examples)


def test_names_stay_where_they_are(page: str) -> None:
    parsed = Page(page)
    tags = {tag for tag, _ in parsed.tags}
    assert "script" not in tags
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert "<script" not in page
    assert "{{ 7*7 }}" in "".join(parsed.text)
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert [each["alt"] for each in images] == [EVIL] * 3
    assert all(each["title"] == EVIL for each in images[1:])
    assert EVIL in "".join(parsed.text)


def test_nothing_outside_is_needed(page: str) -> None:
    parsed = Page(page)
    assert {tag for tag, _ in parsed.tags} & {
        "link",
        "script",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "a",
    } == set()
    sources = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    assert all(str(source).startswith("data:image/") for source in sources)
    assert "url(" not in page
    assert "@import" not in page
    assert "http" not in page


def test_verdict_figures_pictures_tables(page: str, tmp_path: Path) -> None:
    text = " ".join("".join(Page(page).text).split())
    order = (
        "Right on ",
        "Accepts at least 95",
        "turns away",
        "The threshold was set on the same test images that are counted here",
        "The score is z_max: Largest cosine",
        "Figures",
        "Pictures",
    )
    order += ("Accuracy and kappa", "Which kappa to train with", "How this was made")
    places = [text.index(each) for each in order]
    assert places == sorted(places)
    assert page.count('class="verdict"') == 1
    (block,) = re.findall(r'<div class="verdict">.*?</div>', page, flags=re.DOTALL)
    assert block.count("<p>") == 3
    without = page_of(tmp_path, evil="plain")
    assert "<h2>Pictures</h2>" not in without
    markdown = (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert markdown.startswith("# Evaluation\n\n**plain**\n\n- Right on ")
    assert "The threshold was set on the same test images that are counted here" in markdown
    left_out = page_of(tmp_path, examples=Examples((), "The pictures are left out."))
    assert '<p class="note">The pictures are left out.</p>' in left_out


def test_words_are_explained_on_hover_and_below(page: str) -> None:
    parsed = Page(page)
    hovers = [attributes["title"] for tag, attributes in parsed.tags if tag == "abbr"]
    assert "Chance that a positive scores higher than a negative: 0.5 is guessing, 1 is perfect." in hovers
    assert "Largest cosine between the feature and a class weight." in hovers
    tables = sum(tag == "table" for tag, _ in parsed.tags)
    assert tables == sum(tag == "details" for tag, _ in parsed.tags) == 5
    headers = re.findall(r"<th>(.*?)</th>", page, flags=re.DOTALL)
    assert [header for header in headers if "<abbr title=" not in header] == []
    assert page.count("<dt>AUROC</dt>") == 2


def test_few_mistakes_stand_beside_the_number(page: str) -> None:
    found = re.findall(r"<td>\s*0\.\d+ \[.*?\], only (\d+) negatives\s*</td>", page)
    assert len(found) == 4  # scores of misclassified images; of the 80 outliers there are enough
    assert all(int(number) < 50 for number in found)


def test_the_verdict_goes_by_the_score_of_the_rejector(tmp_path: Path) -> None:
    test = make_cache(300, seed=2, spread=1.0)
    assessment = assess("m", test, resamples=100)
    subject = Subject(assessment, test, {}, None, Rejector.fit("norm", None, test))
    write_report([subject], [], tmp_path, FACTS)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The score is ||x||: Length of the feature." in page
    assert verdict(assessment, "norm")[1] != verdict(assessment)[1]
    assert verdict(assessment, "norm")[1].replace(" %", "\N{NO-BREAK SPACE}%") in page
