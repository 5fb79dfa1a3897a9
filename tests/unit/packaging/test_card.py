"""The dataset folder that the card stage writes."""

import getpass
import hashlib
import json
import platform
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from distillhub.errors import PipelineError
from distillhub.packaging.card import build_card
from distillhub.packaging.rendering import render
from distillhub.packaging.specs import CardSpec, PublishSpec
from distillhub.packaging.verify import verify
from distillhub.records.report import ComputeBlock, EvalReport, loads
from tests.unit.packaging import sample

CONSTANTS = {"95", "0", "1"}
"""Of the template's own words: 95 % intervals, pixels in [0, 1]."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "set"
    sample.build(folder)
    return folder


def body(folder: Path) -> str:
    """The card without front matter, programs, code, links and digests."""
    text = (folder / "README.md").read_text().split("---\n", 2)[2]
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)


def figures(value: object) -> set[str]:
    """Every way in which a card may write the numbers of `eval.json`."""
    if isinstance(value, dict):
        parts = [figures(key) for key in value] + [figures(part) for part in value.values()]
        return set().union(*parts)
    if isinstance(value, list):
        return set().union(*(figures(part) for part in value))
    if isinstance(value, str):
        return set(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)*", value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        size = abs(value)
        shown = {f"{size:,}", f"{size:.1f}", f"{size:.2f}", f"{size:.3f}", f"{size:.4g}"}
        return shown | {str(size), f"{100 * size:.1f}"}
    return set()


def test_every_number_on_the_card_is_found_in_the_report(built: Path):
    known = figures(json.loads((built / "eval.json").read_text())) | CONSTANTS

    numbers = set(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)*", body(built)))

    assert len(numbers) > 40
    assert numbers <= known


def test_every_figure_of_the_arms_is_on_the_card(built: Path):
    shown = body(built)

    assert all(f"{100 * mean:.1f} [" in shown for mean in sample.MEANS.values())


def test_equal_inputs_give_equal_files(built: Path, tmp_path: Path):
    sample.build(tmp_path / "again")

    first, again = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (built, tmp_path / "again")
    )
    assert first == again


def test_another_machine_and_time_leave_the_digest_as_it_is(built: Path, tmp_path: Path):
    package = tmp_path / "package"
    sample.package(package)
    given = sample.inputs(package, sample.report())
    slower = {stage: cost.model_copy(update={"wall_seconds": 99.0, "device_name": "other"})
              for stage, cost in given.compute.items()}  # fmt: skip
    (tmp_path / "set").mkdir()

    made = build_card(replace(given, compute=slower), tmp_path / "set")

    assert made.digest == verify(built).digest


def test_neither_path_nor_host_nor_user_is_in_any_file(built: Path):
    hidden = [str(built), str(Path.home()), "/tmp", platform.node(), getpass.getuser()]
    texts = {p.name: p.read_bytes() for p in built.rglob("*") if p.is_file()}

    found = [
        (name, word) for name, text in texts.items() for word in hidden
        if len(word) > 4 and word.encode() in text
    ]  # fmt: skip
    assert found == []


def test_both_tables_open_with_load_dataset(built: Path, tmp_path: Path):
    import datasets

    rows = datasets.load_dataset(str(built), split="train", cache_dir=str(tmp_path))
    runs = datasets.load_dataset(str(built), "evaluation", cache_dir=str(tmp_path))["results"]

    assert (rows.num_rows, runs.num_rows) == (12, 15)
    assert rows.features["label"].names == list(sample.CLASSES)
    assert runs[0]["top1"] == loads((built / "eval.json").read_bytes()).runs[0].top1


@pytest.mark.parametrize("soft", [True, False], ids=["soft", "hard"])
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "RGB"])
def test_the_programs_on_the_card_run(
    soft: bool, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sample.build(tmp_path / "set", soft=soft, channels=channels)
    monkeypatch.chdir(tmp_path / "set")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    programs = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), flags=re.DOTALL)

    found: dict[str, Any] = {"__name__": "card"}
    for program in programs:
        exec(program.replace("range(50)", "range(3)"), found)  # noqa: S102

    assert len(programs) == (3 if soft else 2)
    assert found["loss"].isfinite()
    assert len(found["train"]) == 12


def test_the_card_is_rendered_from_the_report_alone(built: Path):
    report = loads((built / "eval.json").read_bytes())

    assert render(report) == (built / "README.md").read_text()


def test_front_matter_says_what_the_hub_asks_for(built: Path):
    text = (built / "README.md").read_text().split("---\n")[1]

    front = YAML(typ="safe").load(text)

    assert front["license"] == "cc-by-4.0"
    assert front["task_categories"] == ["image-classification"]
    assert front["size_categories"] == ["n<1K"]
    assert [part["config_name"] for part in front["configs"]] == ["default", "evaluation"]
    assert front["distillhub"]["views"]["count"] == sample.VIEWS


def card_of(report: EvalReport, tmp_path: Path, **changes: Any) -> str:
    package = tmp_path / "package"
    sample.package(package, soft=report.labels.regime != "hard")
    (tmp_path / "set").mkdir()
    build_card(replace(sample.inputs(package, report), **changes), tmp_path / "set")
    assert verify(tmp_path / "set").faults == ()
    return (tmp_path / "set" / "README.md").read_text()


def test_what_storing_labels_costs_is_told(tmp_path: Path):
    made = sample.report()
    costs = {"1": 0.0012, "4": 0.0003, "20": 0.00001}
    labels = made.labels.model_copy(update={"codec_kl": costs, "codec_mse": 0.25})

    text = card_of(made.model_copy(update={"labels": labels}), tmp_path)

    assert (
        "Storing them costs 0.0012 nats (KL) at temperature 1, 0.0003 nats (KL) at temperature 4 "
        "and 1e-05 nats (KL) at temperature 20. The mean squared error of a logit is 0.25."
    ) in text


def test_missing_arms_are_named_in_a_warning(tmp_path: Path):
    arms = {"syn_soft": 0.8, "rnd_soft": 0.7}

    text = card_of(sample.report(arms=arms), tmp_path)

    assert (
        "> - Incomplete evaluation: without distilled, hard labels; random real, hard labels."
        in text
    )


def test_a_protocol_that_only_shows_that_it_runs_is_named_in_a_warning(tmp_path: Path):
    made = sample.report()
    block = made.protocols["digits-1"].model_copy(update={"publishable": False})

    text = card_of(made.model_copy(update={"protocols": {"digits-1": block}}), tmp_path)

    assert "> - Figures under digits-1 only show" in text


def test_a_full_evaluation_warns_of_nothing(built: Path):
    assert "[!WARNING]" not in (built / "README.md").read_text()


def test_a_set_that_was_not_evaluated_says_so(tmp_path: Path):
    made = sample.report().model_copy(
        update={"runs": (), "planned": (), "comparisons": (), "cross_arch": {}, "protocols": {}}
    )

    text = card_of(made, tmp_path)

    assert "\nNot evaluated.\n" in text
    assert "config_name: evaluation" not in text


def test_copies_of_real_images_are_named_in_a_warning(tmp_path: Path):
    made = sample.report()
    method = made.method.model_copy(update={"real_pixels": True})

    text = card_of(made.model_copy(update={"method": method}), tmp_path)

    assert "> - The images are copies of real ones" in text
    assert "Images made of real pixels by construction: 100.0 %" in text


def test_a_published_set_is_opened_by_its_name_and_version(tmp_path: Path):
    text = card_of(sample.report(), tmp_path, publish=PublishSpec(repo_id="me/animals"))

    assert 'load_dataset("me/animals", revision="v1.0.0", split="train")' in text


def test_text_of_the_author_cannot_run_as_a_template(tmp_path: Path):
    card = CardSpec(license="mit", notes=("{{ 6 * 7 }} {% if %}",), pretty_name="A: {b} 'c' #d")

    text = card_of(sample.report(), tmp_path, card=card)

    assert "- {{ 6 * 7 }} {% if %}" in text
    assert YAML(typ="safe").load(text.split("---\n")[1])["pretty_name"] == "A: {b} 'c' #d"


def test_the_total_adds_times_and_takes_the_highest_peak(built: Path):
    total = loads((built / "eval.json").read_bytes()).compute["all"]

    assert total == ComputeBlock(
        wall_seconds=15.0, cpu_seconds=14.25, peak_host_bytes=123_456_789, device_name="cpu"
    )


def test_a_package_that_changed_since_it_was_written_is_refused(tmp_path: Path):
    package = tmp_path / "package"
    sample.package(package)
    shard = package / "data/train-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes() + b"x")
    (tmp_path / "set").mkdir()

    with pytest.raises(PipelineError, match=r"is not what package\.json says"):
        build_card(sample.inputs(package, sample.report()), tmp_path / "set")


def test_impossible_labels_are_not_published(tmp_path: Path):
    package = tmp_path / "package"
    sample.package(package, outside=True)
    (tmp_path / "set").mkdir()

    with pytest.raises(PipelineError, match="row 5 leaves the image of 8 x 8 pixels"):
        build_card(sample.inputs(package, sample.report()), tmp_path / "set")


def test_croissant_describes_files_and_columns_that_mlcroissant_can_read(built: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlcroissant

        described = mlcroissant.Dataset(str(built / "croissant.json"))
        record = next(iter(described.records("train")))

    issues = described.metadata.ctx.issues
    assert not issues.errors
    assert all("datePublished" in str(warning) for warning in issues.warnings)
    assert record["train/image"].size == (8, 8)
    assert len(record["train/soft_val"]) == sample.VIEWS * len(sample.CLASSES)


def test_provenance_names_the_files_the_whole_and_what_was_read(built: Path):
    said = json.loads((built / "provenance.json").read_text())
    shard = "data/train-00000-of-00001.parquet"
    subjects = {part["name"]: part["digest"]["sha256"] for part in said["subject"]}

    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert subjects[shard] == hashlib.sha256((built / shard).read_bytes()).hexdigest()
    assert verify(built).digest in subjects.values()
    assert said["predicate"]["buildDefinition"]["resolvedDependencies"][0]["uri"].startswith("hub:")
    assert said["predicate"]["runDetails"]["metadata"]["startedOn"] == "2026-01-02T03:04:05+00:00"
