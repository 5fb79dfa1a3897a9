"""The classic grid of students beside ConvNet: planned, summarised, shown on the card."""

import re
from pathlib import Path

import pytest

from distillhub.evaluation.arms import planned_runs
from distillhub.evaluation.specs import EvalSpec
from distillhub.evaluation.summary import Summary, summarize
from distillhub.models.zoo import build
from distillhub.records.report import PlannedRun
from tests.unit.evaluation.sets import made_up
from tests.unit.packaging import sample
from tests.unit.packaging.test_card import card_of

GRID = {"convnet3": 0.60, "alexnet": 0.40, "vgg11": 0.45, "resnet18-in": 0.50, "mlp": 0.25}
SPEC = EvalSpec(
    protocol="lowres-1", students=tuple(GRID), runs=1, arms=("syn_hard", "rnd_packed_hard")
)


def planned(side: int) -> tuple[PlannedRun, ...]:
    return planned_runs([SPEC], seed=0, soft=False, height=side, width=side, mosaics=True)


@pytest.fixture
def summary() -> Summary:
    plans = planned(28)
    runs = [made_up(p, GRID[p.arch] - (0.1 if p.arm.startswith("rnd") else 0)) for p in plans]
    guides = frozenset({"convnet3"})
    return summarize([SPEC], plans, runs, soft=False, height=28, width=28, source_archs=guides)


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_every_student_of_the_grid_fits_the_classic_images(channels: int, side: int) -> None:
    plans = planned(side)

    assert [(p.arch, p.arm) for p in plans] == [(a, arm) for a in GRID for arm in SPEC.arms]
    for arch in GRID:
        half = (0.5,) * channels
        net = build(
            arch, num_classes=10, channels=channels, height=side, width=side,
            mean=half, std=half, seed=0,
        )  # fmt: skip
        assert net.num_classes == 10


def test_the_gap_is_from_the_network_of_the_synthesis_to_the_mean_of_the_others(
    summary: Summary,
) -> None:
    found = summary.cross_arch

    assert list(found)[:5] == list(GRID)
    assert found["mean_other"].value == pytest.approx(0.40)
    assert found["gap"].value == pytest.approx(0.20)


def test_the_card_has_a_row_for_every_student(summary: Summary, tmp_path: Path) -> None:
    report = sample.report(soft=False).model_copy(update={"cross_arch": summary.cross_arch})

    text = card_of(report, tmp_path).partition("## Other architectures")[2]

    rows = dict(re.findall(r"^\| ([\w -]+?) \| ([+\d.]+) \|", text, re.MULTILINE))
    assert {arch: rows[arch] for arch in GRID} == {
        arch: f"{100 * top1:.1f}" for arch, top1 in GRID.items()
    }
    assert rows["mean of foreign ones"] == "40.0"
    assert rows["own - foreign ones"].lstrip("+") == "20.0"
