"""What is refused before a single request; the process here has no network at all."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distillhub.errors import HubError, RefusedError, UsageError, VerificationError
from distillhub.hub.client import scrubbed
from distillhub.hub.planning import make_plan
from distillhub.hub.refusals import refusals
from distillhub.packaging.card import REPORT
from distillhub.records.report import (
    EvalReport,
    GeneratorBlock,
    Metric,
    PrivacyBlock,
    RightsBlock,
    loads,
)

Variant = Callable[[Callable[[EvalReport], EvalReport]], Path]


@pytest.fixture
def report(tiny: Path) -> EvalReport:
    return loads((tiny / REPORT).read_bytes())


def copies(report: EvalReport, rights: str) -> EvalReport:
    return report.model_copy(
        update={
            "privacy": PrivacyBlock(real_pixel_share=1.0),
            "rights": RightsBlock.model_validate({"redistributable": rights}),
        }
    )


def licensed(report: EvalReport, license_: str, name: str | None = None) -> EvalReport:
    assert report.card is not None
    card = report.card.model_copy(update={"license": license_, "license_name": name})
    return report.model_copy(update={"card": card})


def generated(report: EvalReport, license_: str | None) -> EvalReport:
    generator = GeneratorBlock(id="org/dit", revision=None, sha256="0" * 64, license=license_)
    method = report.method.model_copy(update={"generator": generator})
    return report.model_copy(update={"method": method})


def test_a_damaged_set_is_not_published(tiny: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny, tmp_path / "set"))
    (folder / "README.md").write_bytes(b"x" + (folder / "README.md").read_bytes())

    with pytest.raises(VerificationError, match=r"README\.md: the file has sha256"):
        make_plan(folder, repo_id="org/tiny")


def test_an_incomplete_evaluation_is_not_published_unless_that_is_asked_for(report: EvalReport):
    first = report.comparisons[0]
    metrics = {**first.metrics, "top1.rnd_soft": Metric(note="no time")}
    first = first.model_copy(update={"metrics": metrics})
    fewer = report.model_copy(update={"comparisons": (first, *report.comparisons[1:])})

    found = list(refusals(fewer, allow_incomplete=False))

    assert [fault.what for fault in found] == [
        "Incomplete evaluation: without random real, soft labels"
    ]
    assert "--allow-incomplete" in found[0].mend
    assert list(refusals(fewer, allow_incomplete=True)) == []


def test_planned_runs_that_are_missing_are_incomplete_too(report: EvalReport):
    runs = tuple(run for run in report.runs if run.arm != "syn_soft")
    fewer = report.model_copy(update={"runs": runs})

    found = list(refusals(fewer, allow_incomplete=False))

    assert found[0].what == "planned and not run: distilled, soft labels"


@pytest.mark.parametrize("rights", ["no", "unknown"])
def test_copies_of_real_images_need_the_right_to_publish_them(report: EvalReport, rights: str):
    found = list(refusals(copies(report, rights), allow_incomplete=True))

    assert [fault.where for fault in found] == ["card.redistributable"]
    assert "copies of real ones" in found[0].what


def test_copies_that_may_be_published_again_are(report: EvalReport):
    assert list(refusals(copies(report, "yes"), allow_incomplete=True)) == []


@pytest.mark.parametrize("license_", ["cc-by-nc-4.0", "cc-by-nc-sa-4.0"])
def test_a_free_license_contradicts_a_generator_for_non_commercial_use(
    report: EvalReport, license_: str
):
    made = generated(licensed(report, "cc-by-4.0"), license_)

    found = list(refusals(made, allow_incomplete=True))

    assert [fault.where for fault in found] == ["card.license"]
    assert license_ in found[0].what


@pytest.mark.parametrize(
    ("own", "name", "generator"),
    [
        ("cc-by-nc-4.0", None, "cc-by-nc-4.0"),
        ("other", "imagenet-research", "cc-by-nc-4.0"),
        ("cc-by-4.0", None, "apache-2.0"),
        ("cc-by-4.0", None, None),
    ],
)
def test_licenses_that_agree_are_published(
    report: EvalReport, own: str, name: str | None, generator: str | None
):
    made = generated(licensed(report, own, name), generator)

    assert list(refusals(made, allow_incomplete=True)) == []


def test_all_reasons_come_together_and_before_the_network(variant: Variant):
    folder = variant(lambda report: copies(report, "no").model_copy(update={"runs": ()}))

    with pytest.raises((RefusedError, VerificationError)) as told:
        make_plan(folder, repo_id="org/tiny")

    assert told.value.exit_code == 5
    assert len(told.value.faults) > 1


def test_a_set_says_where_it_goes_or_is_told(tiny: Path):
    with pytest.raises(UsageError, match="does not say where it goes"):
        make_plan(tiny)
    with pytest.raises(UsageError, match="'tiny' is no name of a repository"):
        make_plan(tiny, repo_id="tiny")


def test_without_a_token_nothing_is_asked_for(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)

    with pytest.raises(HubError, match="known users only"):
        make_plan(tiny, repo_id="org/tiny")


def test_a_version_that_is_none_is_a_mistake_of_use(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")

    with pytest.raises(UsageError, match=re.escape("'1.0' is no version")):
        make_plan(tiny, repo_id="org/tiny", version="1.0")


def test_texts_are_searched_for_tokens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "a-token-of-another-kind")

    said = scrubbed("a-token-of-another-kind, hf_abcdefghijkl; Authorization: Bearer xyz.123 end")

    assert said == "[token], [token]; Authorization: Bearer [token] end"
