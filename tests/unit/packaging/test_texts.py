"""How differing texts are told, and cards of other versions of the renderer."""

import re
from pathlib import Path

from distillhub.packaging.rendering import RENDERING
from distillhub.packaging.texts import lines, unknown_figures
from distillhub.packaging.verify import verify
from tests.unit.packaging import corruption, sample


def told(seen: str, wanted: str) -> list[tuple[str, str]]:
    return [(fault.where, fault.what) for fault in lines("card", seen, wanted, "eval.json")]


def test_equal_texts_have_no_fault():
    assert told("a\nb\n", "a\nb\n") == []


def test_one_other_word_is_told_alone():
    assert told("x\n| a | 5.1 |\n", "x\n| a | 4.1 |\n") == [
        ("card: line 2", "says '5.1', eval.json gives '4.1'")
    ]


def test_a_line_too_many_leaves_the_others_alone():
    assert told("a\nnew\nb\nc", "a\nb\nc") == [("card: line 2", "not from eval.json: 'new'")]


def test_a_line_too_few_leaves_the_others_alone():
    assert told("a\nc", "a\nb\nc") == [("card: line 2", "missing: 'b'")]


def test_a_text_of_other_lines_names_the_first_and_their_number():
    found = told("\n".join("x" * 5000), "\n".join("y" * 5000))

    assert found[0] == ("card: line 1", "says 'x', eval.json gives 'y'")
    assert found[-1] == ("card", "5000 lines differ in all")


def test_figures_of_a_text_are_looked_for_in_every_form():
    report = {"a": 0.8123, "b": [12345], "c": "torch 2.15"}
    text = "---\nx: 9\n---\n81.2 % of 12,345 with 2.15, `8.8` [7](7.md), x-3\n```\n5\n```\n81.3\n"

    found = [(f.where, f.what) for f in unknown_figures("card", text, report)]

    assert found == [
        ("card: line 4", "says 7, not a figure of the report"),
        ("card: line 8", "says 81.3, not a figure of the report"),
    ]


def older(folder: Path) -> Path:
    """A card of another renderer, with other words."""
    sample.build(folder)
    corruption.edit_report(folder, lambda content: content["card"].update(rendering=RENDERING + 1))
    card = folder / "README.md"
    card.write_text(card.read_text().replace("Test top-1 in %", "Accuracy in percent"))
    corruption.recompute_manifest(folder)
    return card


def test_a_card_of_another_renderer_may_have_other_words(tmp_path: Path):
    older(tmp_path / "set")

    assert verify(tmp_path / "set").faults == ()


def test_a_card_of_another_renderer_may_have_no_other_figures(tmp_path: Path):
    card = older(tmp_path / "set")
    card.write_text(card.read_text().replace("| 81.2 [", "| 88.8 [", 1))
    corruption.recompute_manifest(tmp_path / "set")

    faults = [str(fault) for fault in verify(tmp_path / "set").faults]

    assert len(faults) == 1
    assert re.match(r"README\.md: line \d+: says 88\.8, not a figure of the report", faults[0])
