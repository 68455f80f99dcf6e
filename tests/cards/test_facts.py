"""The form of facts has every key; what is not filled in is missing; a model may stand alone."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from cosify.cards.facts import Facts, write_form
from cosify.errors import InputError

NEEDED = ["repo_id", "license", "dataset_id", "dataset_name", "dataset_license", "use", "limits"]


def test_the_form_has_every_key_and_no_answer(tmp_path: Path) -> None:
    write_form(tmp_path / "new" / "facts.yaml")
    found = yaml.safe_load((tmp_path / "new" / "facts.yaml").read_text(encoding="utf-8"))
    assert set(found) == {entry.name for entry in fields(Facts)}
    assert {name: value for name, value in found.items() if value is not None} == {"dataset_split": "test"}
    with pytest.raises(InputError) as error:
        Facts.read(tmp_path / "new" / "facts.yaml")
    assert f"lacks {NEEDED}, expected" in str(error.value)


def test_a_filled_form_is_read_and_needs_no_siblings(tmp_path: Path) -> None:
    file = tmp_path / "facts.yaml"
    write_form(file)
    answers = {"repo_id": "ORG/net", "use": "transfer", "limits": "\n- few classes\n- one seed"}
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        key, _, rest = line.partition(":")
        answer = answers.get(key, "said") if key in NEEDED else ""
        lines.append(f"{key}:{rest}" if not answer else f"{key}: {answer}")
    file.write_text("\n".join(lines), encoding="utf-8")
    facts = Facts.read(file)
    assert (facts.repo_id, facts.use, facts.limits) == ("ORG/net", "transfer", ("few classes", "one seed"))
    assert (facts.siblings, facts.base_model, facts.dataset_split) == ((), None, "test")
    file.write_text(file.read_text(encoding="utf-8").replace("dataset_split: test", "dataset_split:"), encoding="utf-8")
    assert Facts.read(file) == facts


def test_written_facts_are_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "facts.yaml"
    file.write_text("license: mine")
    with pytest.raises(InputError, match="exists, expected a new file"):
        write_form(file)
    assert file.read_text() == "license: mine"


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (b"license: \xff\n", r"cannot be read \(UnicodeDecodeError\), expected the facts of a card"),
        (b"siblings: [null]\n", r"siblings in .* is \[None\], expected text, or a list of texts"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, facts: bytes, message: str) -> None:
    rest = b"".join(
        b"%s: [said]\n" % key.encode() if key == "limits" else b"%s: said\n" % key.encode() for key in NEEDED
    )
    (tmp_path / "facts.yaml").write_bytes(facts + rest)
    with pytest.raises(InputError, match=message):
        Facts.read(tmp_path / "facts.yaml")
