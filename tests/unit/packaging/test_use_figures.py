"""The plots of continual learning and of slimming."""

from pathlib import Path

import pytest
from PIL import Image

from distillhub.packaging.use_figures import Line, continual_plot, lines_plot, slim_plot
from distillhub.records.report import Metric
from distillhub.records.uses import ContinualReport, SlimPoint, SlimReport, Stage, UsedSet

ARMS = ("syn_hard", "rnd_hard")
USE = {
    "dataset": UsedSet(
        name="set",
        revision=None,
        manifest_sha256=None,
        images_sha256="0" * 64,
        images=20,
        class_names=("a", "b"),
    ),
    "data": "sklearn:digits",
    "test_sha256": "1" * 64,
    "protocol": "digits-1",
    "protocol_sha256": "2" * 64,
    "publishable": True,
    "arch": "convnet3-w32",
    "regime": "hard",
    "seeds": (0, 1, 2),
    "device": "cpu",
    "threads": 1,
    "code_version": "0",
}


def metric(value: float) -> Metric:
    return Metric(value=value, ci95=(0.1, 0.95), n=3, status="measured")


def figures(ours: float, theirs: float) -> dict[str, Metric]:
    return {"syn_hard": metric(ours), "rnd_hard": metric(theirs)}


def continual(last: float = 0.7) -> ContinualReport:
    gain = Metric(value=0.1, unit="difference", status="measured")
    stages = [
        Stage(new=(1,), seen=1, top1=figures(0.9, 0.8), gain=gain, runs=()),
        Stage(new=(0,), seen=2, top1=figures(last, 0.5), gain=gain, runs=()),
    ]
    return ContinualReport(
        **USE,
        order_seed=0,
        class_order=(1, 0),
        stages=stages,
        mean_top1=figures(0.8, 0.65),
        mean_gain=gain,
    )


def slim(last: float = 0.7) -> SlimReport:
    gain = Metric(value=0.1, unit="difference", status="measured")
    points = [
        SlimPoint(
            ratio=ratio,
            parameters=dict.fromkeys(ARMS, 10.0),
            flops=dict.fromkeys(ARMS, 20.0),
            top1_pruned=figures(0.3, 0.2),
            top1=figures(top1, 0.5),
            gain=gain,
        )
        for ratio, top1 in ((0.0, 0.9), (0.5, last))
    ]
    return SlimReport(
        **USE,
        sparsity=1e-4,
        finetune=1.0,
        resolution=(16, 16),
        layers=(4,),
        parameters=10,
        flops=20,
        points=points,
        runs=(),
    )


@pytest.mark.parametrize(("plot", "report"), [(continual_plot, continual), (slim_plot, slim)])
def test_equal_reports_give_equal_bytes_and_others_do_not(tmp_path: Path, plot, report):
    for name, last in (("a", 0.7), ("b", 0.7), ("c", 0.6)):
        plot(report(last), tmp_path / name)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_a_plot_names_neither_software_nor_time(tmp_path: Path):
    continual_plot(continual(), tmp_path / "plot.png")

    with Image.open(tmp_path / "plot.png") as picture:
        assert set(picture.info) <= {"dpi"}


def test_an_interval_is_drawn_where_there_is_one(tmp_path: Path):
    for name, ci in (("with", (0.4, 0.6)), ("without", None)):
        values = tuple(Metric(value=0.5, ci95=ci, n=3, status="measured") for _ in range(2))
        line = Line("distilled", "#1b6ca8", (1.0, 2.0), values)
        lines_plot([line], tmp_path / name, title="", xlabel="", ticks=(1.0, 2.0))

    def blue(name: str) -> int:
        with Image.open(tmp_path / name) as picture:
            pixels = picture.convert("RGB").get_flattened_data()
        return sum(b > r + 10 for r, _, b in pixels)

    assert blue("with") > 2 * blue("without")
