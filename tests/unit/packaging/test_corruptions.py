"""200 seeded corruptions of an artifact: how many are found and named, and which cannot be."""

import random
import re
import shutil
from pathlib import Path

import pytest

from distillhub.packaging.verify import verify
from tests.unit.packaging import corruption, sample

CANNOT_BE_FOUND = {
    "manifest recomputed, pixel of the plot": (
        "a plot is not drawn again, as other versions of matplotlib draw other bytes; the figures "
        "themselves stand on the card and are checked"
    ),
    "manifest recomputed, time in provenance.json": (
        "times are told by the build alone; nothing else records them"
    ),
    "everything made anew, pixel": (
        "a consistent artifact with other rows: only its digest differs from the published one"
    ),
    "everything made anew, soft label": (
        "a plausible logit in a consistent artifact: only its digest differs from the published one"
    ),
    "everything made anew, evaluation": (
        "runs, figures and card agree: only training again would tell; runs_sha256 differs"
    ),
}


def test_there_are_150_plain_corruptions_and_50_with_a_recomputed_manifest():
    plain = sum(count for _, count in corruption.PLAIN.values())
    after = sum(
        count for kinds in (corruption.RECOMPUTED, corruption.REMADE) for _, count in kinds.values()
    )

    assert (plain, after) == (150, 50)


@pytest.mark.slow
def test_200_corruptions_are_found_and_named_but_for_the_kinds_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sample.build(tmp_path / "good")
    chance = random.Random(20)
    counts: dict[str, list[int]] = {}
    unnamed: list[str] = []
    for after, kinds in {
        "plain": corruption.PLAIN,
        "manifest recomputed": corruption.RECOMPUTED,
        "everything made anew": corruption.REMADE,
    }.items():
        for kind, (spoil, count) in kinds.items():
            name = f"{after}, {kind}"
            counts[name] = [0, 0, count]
            for number in range(count):
                folder = tmp_path / f"set-{len(counts)}-{number}"
                shutil.copytree(tmp_path / "good", folder)
                shutil.copytree(tmp_path / "good-package", Path(f"{folder}-package"))
                pattern = spoil(folder, chance)
                if after == "everything made anew":
                    corruption.remake_everything(folder)
                if after == "manifest recomputed":
                    corruption.recompute_manifest(folder)
                    pattern = corruption.AFTERWARDS.get(kind, pattern)
                faults = [str(fault) for fault in verify(folder).faults]
                named = any(re.search(pattern, fault) for fault in faults)
                counts[name][0] += bool(faults)
                counts[name][1] += named
                if not named and not (after != "plain" and name in CANNOT_BE_FOUND):
                    unnamed.append(f"{name} {number}: /{pattern}/ in {faults}")
                shutil.rmtree(folder)

    with capsys.disabled():
        print_table(counts)
    assert {name for name, (found, _, count) in counts.items() if found < count} == set(
        CANNOT_BE_FOUND
    )
    assert not unnamed


def print_table(counts: dict[str, list[int]]) -> None:
    lines = ["", f"{'corruption':<50} {'found':>5} {'named':>5} {'of':>4}"]
    lines += [f"{name:<50} {f:>5} {n:>5} {c:>4}" for name, (f, n, c) in counts.items()]
    found, named, count = (sum(column) for column in zip(*counts.values(), strict=True))
    lines += [f"{'all':<50} {found:>5} {named:>5} {count:>4}", "cannot be found:"]
    lines += [f"- {name}: {why}" for name, why in CANNOT_BE_FOUND.items()]
    print("\n".join(lines))  # noqa: T201 - the table is what this test shows
