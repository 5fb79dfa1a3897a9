"""A method that has a label goes by it on its card."""

from pathlib import Path

from distillhub.methods.igds import IGDS
from distillhub.packaging.card import build_card
from distillhub.packaging.rendering import render
from distillhub.packaging.verify import verify
from distillhub.records.report import loads
from tests.unit.packaging import sample


def built(folder: Path) -> Path:
    """A set whose method has the label and the notes of `igds`."""
    made = sample.report()
    method = made.method.model_copy(update={"name": "igds", "label": IGDS.label})
    report = made.model_copy(update={"method": method, "limitations": IGDS.notes})
    package = folder.with_name("package")
    sample.package(package)
    folder.mkdir()
    build_card(sample.inputs(package, report), folder)
    return folder


def test_the_card_says_the_label_and_the_notes(tmp_path: Path) -> None:
    card = (built(tmp_path / "set") / "README.md").read_text()

    assert "distilled by IGDS-style: " in card
    assert "- Method: IGDS-style, `igds`, version" in card
    for note in IGDS.notes:
        assert f"- {note}\n" in card


def test_a_labelled_set_is_verified_like_any_other(tmp_path: Path) -> None:
    assert verify(built(tmp_path / "set")).faults == ()


def test_a_method_without_a_label_goes_by_its_name(tmp_path: Path) -> None:
    sample.build(tmp_path / "set")
    report = loads((tmp_path / "set" / "eval.json").read_bytes())

    assert report.method.label is None
    assert f"distilled by `{report.method.name}`: " in render(report)
