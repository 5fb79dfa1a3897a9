"""`eval.json`: what cannot be stored in it, and that it survives writing and reading."""

import json

import pytest
from pydantic import ValidationError

from distillhub.digests import canonical
from distillhub.errors import VerificationError
from distillhub.records.report import (
    Comparison,
    EvalReport,
    LabelsBlock,
    Metric,
    Run,
    StorageBlock,
    dumps,
    loads,
    runs_digest,
)

DIGEST = "0" * 64
RUN = {
    "id": "digits-1.convnet3-w32.syn_hard.s0",
    "protocol": "digits-1",
    "arm": "syn_hard",
    "arch": "convnet3-w32",
    "regime": "hard",
    "seed": 0,
    "steps": 500,
    "images_seen": 50_000,
    "train_images": 100,
    "test_images": 500,
    "resolution": [16, 16],
    "top1": 0.9,
    "top5": 0.99,
    "nll": 0.4,
    "ece": 0.02,
    "brier": 0.1,
    "class_acc": [0.8, 1.0, None],
    "wall_s": 7.5,
    "device": "cpu",
    "code_version": "0.1.0",
}


def run(**fields):
    return Run.model_validate({**RUN, **fields})


def report(**fields):
    content = {
        "dataset": {
            "name": "digits-dm-10",
            "version": "1.0.0",
            "manifest_sha256": None,
            "recipe_sha256": DIGEST,
            "ipc": 10,
            "classes": 10,
            "images": 100,
            "resolution": [8, 8],
        },
        "source": {
            "id": "sklearn:digits",
            "revision": None,
            "split_hashes": {"train": DIGEST},
            "test_hash": DIGEST,
            "class_order_sha256": DIGEST,
        },
        "method": {"name": "dm", "version": 1, "real_pixels": False},
        "preprocess": {
            "mean": [0.5],
            "std": [0.25],
            "channel_order": "grey",
            "label_names": ["0", "1"],
        },
        "labels": {"regime": "hard"},
        "protocols": {},
        "planned": [],
        "runs": [RUN],
        "comparisons": [],
        "environment": {
            "python": "3.11",
            "torch": "2.15",
            "os": "Linux",
            "deterministic": True,
            "threads": 2,
        },
    }
    return EvalReport.model_validate({**content, **fields})


def altered(**fields):
    return json.dumps({**json.loads(dumps(report())), **fields})


def test_a_report_survives_writing_and_reading():
    assert loads(dumps(report())) == report()


def test_equal_reports_are_written_alike():
    assert dumps(report()) == dumps(loads(dumps(report())))


def test_the_text_names_its_schema():
    assert json.loads(dumps(report()))["schema"] == "distillhub.eval/1"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_cannot_be_read(value):
    text = dumps(report()).replace('"nll": 0.4', f'"nll": {value}')

    with pytest.raises(VerificationError, match=r"eval\.json: runs\.0\.nll"):
        loads(text)


@pytest.mark.parametrize("field", ["nll", "ece", "top1", "wall_s"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_cannot_be_stored(field, value):
    with pytest.raises(ValidationError):
        run(**{field: value})


def test_nan_hides_neither_in_lists_nor_in_mappings():
    with pytest.raises(ValidationError):
        Metric(value=0.5, ci95=(0.4, float("nan")), status="measured")
    with pytest.raises(ValidationError):
        LabelsBlock(regime="hard", statistics={"entropy": float("nan")})


def test_an_unknown_key_is_named():
    with pytest.raises(VerificationError, match=r"eval\.json: sauce"):
        loads(altered(sauce=1))


def test_all_faults_are_reported_together():
    with pytest.raises(VerificationError) as caught:
        loads(altered(sauce=1, runs=7))

    assert len(caught.value.faults) == 2


def test_what_is_no_json_is_a_fault_of_the_file():
    with pytest.raises(VerificationError, match=r"x\.json"):
        loads("{", where="x.json")


@pytest.mark.parametrize("field", ["top1", "top5", "ece"])
def test_a_percentage_is_refused_with_the_fraction(field):
    with pytest.raises(ValidationError, match=r"69\.8 looks like a percentage.*0\.698"):
        run(**{field: 69.8})


def test_a_percentage_among_the_classes_is_refused():
    with pytest.raises(ValidationError, match="looks like a percentage"):
        run(class_acc=[0.5, 81.0])


@pytest.mark.parametrize("unit", ["fraction", "difference"])
def test_a_metric_in_percent_is_refused(unit):
    with pytest.raises(ValidationError, match=r"0\.053 may be meant"):
        Metric(value=5.3, unit=unit, status="measured")


@pytest.mark.parametrize("status", ["not_run", "not_applicable"])
def test_a_figure_that_was_not_measured_has_no_value(status):
    with pytest.raises(ValidationError, match="status is"):
        Metric(value=0.5, status=status)


@pytest.mark.parametrize("status", ["measured", "cited"])
def test_a_figure_that_is_there_has_a_value(status):
    with pytest.raises(ValidationError, match="value is None"):
        Metric(status=status, source="Table 1")


def test_a_cited_figure_has_a_source():
    with pytest.raises(ValidationError, match="needs its source"):
        Metric(value=0.5, status="cited")


def test_bytes_add_up():
    with pytest.raises(ValidationError, match="the parts sum to 6"):
        StorageBlock(
            bytes_images=3, bytes_labels=2, bytes_aux=1, bytes_total=7, label_image_ratio=0.5
        )


def test_a_run_is_listed_once():
    with pytest.raises(ValidationError, match="listed twice"):
        report(runs=[RUN, RUN])


def test_an_id_that_is_no_file_name_is_refused():
    with pytest.raises(ValidationError, match="pattern"):
        run(id="../../etc/passwd")


def test_the_digest_of_runs_does_not_depend_on_times_hosts_and_order():
    first, second = run(), run(id="b", seed=1)
    elsewhere = run(wall_s=99.0, device="cuda", code_version="9")

    assert runs_digest((first, second)) == runs_digest((second, elsewhere))


@pytest.mark.parametrize(
    "change", [{"top1": 0.9001}, {"seed": 1}, {"class_acc": [0.8, 1.0, 0.0]}, {"steps": 501}]
)
def test_the_digest_of_runs_depends_on_every_result(change):
    assert runs_digest((run(),)) != runs_digest((run(**change),))


def test_canonical_text_has_no_order_and_no_nan():
    assert canonical({"b": 1, "a": [1.5]}) == b'{"a":[1.5],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(float("nan"))


def test_the_first_comparison_is_the_headline():
    first = Comparison(protocols={"hard": "digits-1"}, arch="convnet3-w32", metrics={})

    assert report(comparisons=[first]).headline == first
    assert report().headline is None


def test_a_run_without_a_best_epoch_is_written_as_it_always_was():
    assert set(run().model_dump()) == set(RUN) | {"subset_seed"}
    assert canonical(run().model_dump(mode="json")) == canonical({**RUN, "subset_seed": None})


def test_a_best_epoch_is_kept_and_moves_the_digest():
    best = run(best_top1=0.95, best_epoch=10)

    assert Run.model_validate_json(best.model_dump_json()) == best
    assert runs_digest((best,)) != runs_digest((run(),))


@pytest.mark.parametrize(("arm", "regime"), [("syn_hard", "hard"), ("syn_soft", "soft_stored")])
def test_the_published_figure_of_an_earlier_report_is_read(arm, regime):
    paper = {"top1": 0.49, "within": 0.01, "source": "Table 1", "arm": arm}
    earlier = {"protocols": {}, "arch": "convnet3", "metrics": {}, "paper": paper}

    found = Comparison.model_validate(earlier).papers

    assert {key: figure.top1 for key, figure in found.items()} == {regime: 0.49}
    assert Comparison.model_validate({**earlier, "paper": None}).papers == {}
