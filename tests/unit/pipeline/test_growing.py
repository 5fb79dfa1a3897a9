"""Resources that report progress: made once, resumed from their own snapshots alone."""

from functools import partial

import pytest
import torch

from distillhub.digests import sha256_of
from distillhub.models import weights
from distillhub.models.zoo import build
from distillhub.ops.progress import MARK, Progress, capture, own, restore
from distillhub.pipeline.growing import grown
from distillhub.pipeline.workbench import PipelineBench
from tests.fakes import stored, tiny_data

STEPS = 4


def growing(log):
    """Adds 1 per step; `log` gets the step at which each growth begins."""

    def grow(state):
        total = torch.zeros(1)
        done = restore(state, total=total)
        log.append(done)
        for step in range(done, STEPS):
            total += 1
            yield Progress(step + 1, STEPS, {}, partial(capture, step + 1, total=total))
        return lambda folder: (folder / "total").write_text(str(total.item()))

    return grow


def finish(run):
    reports = []
    while True:
        try:
            reports.append(next(run))
        except StopIteration as end:
            return end.value, reports


def test_a_resource_is_grown_once(tmp_path):
    log = []

    first, reports = finish(grown(tmp_path, "sums-a", growing(log), None))
    again, none = finish(grown(tmp_path, "sums-a", growing(log), None))

    assert first == again == tmp_path / "sums-a"
    assert (first / "total").read_text() == "4.0"
    assert [report.done for report in reports] == [1, 2, 3, 4]
    assert (none, log) == ([], [0])


def test_growth_that_was_cut_goes_on_from_its_own_snapshot(tmp_path):
    log = []
    run = grown(tmp_path, "sums-a", growing(log), None)
    next(run)
    state = stored(next(run).snapshot())
    run.close()

    folder, reports = finish(grown(tmp_path, "sums-a", growing(log), state))

    assert log == [0, 2]
    assert [report.done for report in reports] == [3, 4]
    assert (folder / "total").read_text() == "4.0"


@pytest.mark.parametrize("mark", [{MARK: "sums-b"}, {}])
def test_a_snapshot_of_something_else_is_left_alone(tmp_path, mark):
    log = []

    finish(grown(tmp_path, "sums-a", growing(log), {"step": 2, "total": torch.ones(1), **mark}))

    assert log == [0]


def test_growth_that_was_cut_leaves_no_lock_behind(tmp_path):
    run = grown(tmp_path, "sums-a", growing([]), None)
    next(run)
    run.close()

    _, reports = finish(grown(tmp_path, "sums-a", growing([]), None))

    assert len(reports) == STEPS


def test_snapshots_of_a_resource_are_not_a_methods_own(tmp_path):
    report = next(grown(tmp_path, "sums-a", growing([]), None))
    mine = {"step": 3}

    assert own(report.snapshot()) is None
    assert own(mine) is mine
    assert own(None) is None


def test_a_report_without_a_snapshot_stays_without(tmp_path):
    def grow(state):
        yield Progress(1, 1, {}, None)
        return lambda folder: None

    assert next(grown(tmp_path, "a", grow, None)).snapshot is None


def a_bench(folder, data, *, data_key="d"):
    return PipelineBench(
        data=data,
        data_key=data_key,
        models=folder / "models",
        resources=folder / "resources",
        checkpoints=folder / "checkpoints",
        seed=0,
        device=torch.device("cpu"),
    )


def test_the_workbench_grows_for_a_name_a_key_and_the_data(tmp_path):
    data, log = tiny_data(), []

    def place(name="sums", key=("k",), data_key="d"):
        bench = a_bench(tmp_path, data, data_key=data_key)
        return finish(bench.grown(name, {"key": key}, growing(log), None))[0]

    places = [place(), place(), place(name="other"), place(key=("l",)), place(data_key="e")]

    assert places[0] == places[1]
    assert len(set(places)) == 4
    assert len(log) == 4
    assert all(path.parent == tmp_path / "resources" for path in places)


def test_the_workbench_knows_the_digest_of_a_network(tmp_path):
    data = tiny_data()
    net = build(
        "convnet2-w4",
        num_classes=3,
        channels=1,
        height=8,
        width=8,
        mean=data.mean,
        std=data.std,
        seed=0,
    )
    weights.save(net, tmp_path / "models", "observer-0", {})

    found = a_bench(tmp_path, data).weights("observer-0")

    assert found == sha256_of(tmp_path / "models" / "observer-0.safetensors")
