"""The list of mutations fits the code; `python -m tests.mutations` tries them, which takes long."""

import pytest

from tests.mutations import ROOT, Mutation, mutations

NUMBERED = {
    "edc": [f"14.{number}" for number in range(1, 16)],
    "rded": [f"A7.{number}" for number in range(1, 8)] + ["B1", "B2", "B3", "B4"],
    "dm_idm": list("123456789"),
    "bacon": list("123456789"),
    "classic_eval": [str(number) for number in range(1, 11)],
}
"""Invariants of the specification that a mutation stands for."""


@pytest.mark.parametrize("mutation", list(mutations()), ids=lambda m: f"{m.page}-{m.check}")
def test_a_mutation_changes_a_line_that_is_there_once(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text(encoding="utf-8")

    assert text.count(mutation.line) == 1
    assert mutation.becomes != mutation.line
    compile(text.replace(mutation.line, mutation.becomes), mutation.file, "exec")


@pytest.mark.parametrize("page", NUMBERED)
def test_every_numbered_invariant_has_a_mutation(page: str) -> None:
    found = {mutation.check for mutation in mutations([page])}

    assert set(NUMBERED[page]) <= found
