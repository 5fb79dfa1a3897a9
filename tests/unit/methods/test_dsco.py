"""DsCo: the sampling loop with optimised noise, its targets, resume, grouping and cost."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from distillhub.methods._nopt import NoptSpec, Sampling, Targets, da_target, passes
from distillhub.methods._nopt_cost import class_flops
from distillhub.methods.dit import DiT
from distillhub.methods.dsco import DsCo
from distillhub.models.dit_arch import parse_dit
from distillhub.ops.diffusion import Schedule
from distillhub.ops.progress import Progress
from distillhub.ops.projector import Projector
from tests.fakes import TinyBench, made_by, stored, target_of, tiny_data, units_of

SMALL = {"widths": [8, 8, 16, 16], "groups": 4}


@pytest.fixture
def bench(tmp_path) -> TinyBench:
    """Two classes of seven 8 x 8 images: 5 x 7 = 35 diffused latents, 36 with three samples."""
    return TinyBench(tiny_data(classes=2, per_class=7), folder=tmp_path)


def dsco(nopt: dict[str, object] | None = None, **settings: object) -> DsCo:
    inner = {"iterations": 5, "lambda_align": 0.05, "projector": SMALL} | (nopt or {})
    return DsCo.model_validate({"steps": 5, "nopt": inner} | settings)


def images_of(
    method, bench: TinyBench, ipc: int = 3, reports: list[Progress] | None = None
) -> torch.Tensor:
    return made_by(method, units_of(method, target_of(bench.data, ipc)), bench, reports=reports)


@pytest.mark.parametrize("ipc", [3, 5])
@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize(
    "still", [{"iterations": 0}, {"lambda_align": 0.0, "lr": 0.0}, {"mode": "df", "lr": 0.0}]
)
def test_dsco_check_01_without_optimisation_it_is_plain_sampling(bench, ipc, together, still):
    start = "gaussian" if still.get("mode") == "df" else "auto"
    plain = DiT(steps=5, together=together, init_noise=start)

    found = images_of(dsco(still, together=together), bench, ipc)

    assert torch.equal(found, images_of(plain, bench, ipc))


@pytest.mark.parametrize("mode", ["da", "df"])
def test_optimisation_changes_the_images(bench, mode):
    plain = images_of(dsco({"mode": mode, "iterations": 0}), bench)

    found = images_of(dsco({"mode": mode, "template_size": 20}), bench)

    assert not torch.allclose(found, plain, atol=1e-3)


def test_data_free_mode_looks_at_no_real_image(bench):
    blind = TinyBench(replace(bench.data, source=None), folder=bench.folder)  # type: ignore[arg-type]

    images = images_of(dsco({"mode": "df", "template_size": 20}), blind)

    assert images.shape == (6, 1, 8, 8)


@pytest.mark.parametrize(
    ("images", "copies", "n", "expected"),
    [
        (7, 5, 3, (5, 0, 1)),  # 35 -> 36
        (7, 5, 7, (5, 0, 0)),
        (2, 5, 25, (5, 8, 24)),  # 10 < 25: full passes up to 26, then a rest up to 50
        (1300, 5, 10, (5, 0, 0)),
        (732, 5, 100, (5, 0, 40)),
    ],
)
def test_dsco_check_06_the_diffused_latents_are_a_multiple_of_the_samples(
    images, copies, n, expected
):
    found = passes(images, copies, n)

    assert found == expected
    assert (images * sum(found[:2]) + found[2]) % n == 0


@pytest.mark.parametrize("noise", ["lhs", "gaussian"])
def test_dsco_check_06_targets_have_a_pivot_for_every_sample(noise):
    spec = NoptSpec(target_noise=noise, projector=SMALL)
    net = Projector.draw((1, 8, 8), SMALL["widths"], 4, [torch.Generator().manual_seed(1)])
    latents = torch.randn((7, 1, 8, 8), generator=torch.Generator().manual_seed(2))

    target = da_target(
        spec, latents, net, 3, Schedule.linear(5), 3, torch.Generator().manual_seed(3)
    )

    assert target.pivots.shape == (1, 16, 3)
    assert torch.allclose(target.pivots.mean(dim=2), torch.zeros(1, 16), atol=1e-4)
    assert (target.pivots.std(dim=2, correction=0) <= 1).all()
    assert (target.pivots.diff(dim=2) >= 0).all()


def test_the_target_is_at_the_level_of_the_input_or_the_output():
    net = Projector.draw((1, 8, 8), SMALL["widths"], 4, [torch.Generator().manual_seed(1)])
    latents = torch.ones(7, 1, 8, 8)

    def found(level: str, index: int) -> torch.Tensor:
        spec = NoptSpec(target_level=level, projector=SMALL)
        generator = torch.Generator().manual_seed(3)
        return da_target(spec, latents, net, index, Schedule.linear(5), 3, generator).mean

    assert torch.equal(found("output", 3), found("input", 2))
    assert not torch.allclose(found("output", 3), found("input", 3), atol=1e-4)


def test_dsco_check_10_classes_alone_or_together_give_the_same_images(bench):
    for nopt in ({}, {"projector": SMALL | {"per_class": False}}, {"mode": "df"}):
        settings = {"template_size": 10} | nopt

        alone, both = (images_of(dsco(settings, together=k), bench) for k in (1, 2))

        assert torch.allclose(alone, both, atol=1e-4)


def test_dsco_check_13_template_statistics_are_those_of_the_samples_of_plain_sampling(bench):
    spec = dsco({"mode": "df", "template_size": 6}).nopt
    diffusion, schedule = bench.diffusion(), Schedule.linear(5)
    seen: list[torch.Tensor] = []

    def predict(z, labels, index):
        seen.append(z)
        return diffusion.predict(z, labels, index, schedule, cfg=4.0, cfg_channels=3)

    targets = Targets(spec, [1], 3, bench, Sampling(predict, schedule, {}))
    list(targets.prepare())

    for index in (3, 2, 1):
        after = targets.projectors[0](seen[5 - index][None])[0]  # the input of the next step
        found = targets.at(index)
        assert torch.allclose(found.mean[0], after.mean(dim=(0, 2, 3)), atol=1e-6)
        assert torch.allclose(found.std[0], after.std(dim=(0, 2, 3), correction=0), atol=1e-6)
        assert found.pivots is None


def test_dsco_check_14_the_last_latents_are_the_mean_of_the_last_step(bench):
    method = dsco(together=1)
    reports: list[Progress] = []

    images = images_of(method, bench, reports=reports)

    before, after = (stored(report.snapshot()) for report in reports[-2:])
    diffusion = bench.diffusion()
    step = diffusion.predict(
        before["z"][0], torch.full((3,), 1), 0, Schedule.linear(5), cfg=4.0, cfg_channels=3
    )
    assert torch.equal(after["z"][0], step.mean)
    assert torch.equal(images[3:], diffusion.decode(step.mean))
    drawn = Counter(names[2] for names in bench.drawn if names[0] == "noise")
    assert drawn == {4: 2, 3: 2, 2: 2, 1: 2}  # steps with noise, two classes each


def test_latents_and_templates_are_made_once_and_shared(bench):
    for nopt, name in (({}, "latents"), ({"mode": "df", "template_size": 10}, "template")):
        images_of(dsco(nopt), bench)
        folders = sorted(bench.folder.glob(f"{name}-*"))
        times = [folder.stat().st_mtime_ns for folder in folders]

        images_of(
            dsco({"iterations": 2} | nopt), TinyBench(bench.data, seed=8, folder=bench.folder)
        )

        assert len(folders) == 2
        assert sorted(bench.folder.glob(f"{name}-*")) == folders
        assert [folder.stat().st_mtime_ns for folder in folders] == times


@pytest.mark.parametrize(
    ("nopt", "more"),
    [
        ({"template_size": 11}, {}),
        ({"template_seed": 1}, {}),
        ({"projector": SMALL | {"seed": 1}}, {}),
        ({"projector": SMALL | {"groups": 2}}, {}),
        ({}, {"cfg": 2.0}),
    ],
)
def test_templates_of_other_settings_are_others(bench, nopt, more):
    base = {"mode": "df", "template_size": 10}
    images_of(dsco(base), bench)

    images_of(dsco(base | nopt, **more), bench)

    assert len(list(bench.folder.glob("template-*"))) == 4


def test_max_real_limits_the_real_images(bench):
    some, all_of_them, more = (images_of(dsco({"max_real": k}), bench) for k in (3, None, 9))

    assert torch.equal(all_of_them, more)
    assert not torch.allclose(some, all_of_them, atol=1e-4)


def test_the_preset_of_the_paper_gives_way_to_keys_that_are_given():
    paper = DsCo.model_validate(
        {"preset": "paper", "nopt": {"target_level": "input", "iterations": 7}}
    )

    assert (paper.init_noise, paper.nopt.target_noise) == ("gaussian", "gaussian")
    assert (paper.nopt.target_level, paper.nopt.stats_scale) == ("input", "paper")
    assert paper.nopt.iterations == 7
    assert DsCo.model_validate(paper.model_dump()) == paper


def test_the_official_preset_is_that_of_the_code():
    official = DsCo()

    found = official.nopt
    assert (official.init_noise, found.target_noise, found.target_level) == ("auto", "lhs", "input")
    assert (found.iterations, found.lr, found.momentum, found.lambda_align) == (200, 0.1, 0.9, 5e-4)
    assert (found.lambda_stats, found.lambda_maxoc, found.stats_scale) == (1e-3, 10, "code")


@pytest.mark.parametrize(
    ("settings", "ipc", "what"),
    [
        ({"init_noise": "lattice"}, 4, "at least 5 images"),
        ({"init_noise": "lattice", "nopt": {"mode": "df"}}, 5, "start gaussian"),
    ],
)
def test_a_start_that_cannot_be_is_refused(settings, ipc, what):
    faults = list(DsCo.model_validate(settings).check(target_of(tiny_data(), ipc), (9, 9, 9)))

    assert len(faults) == 1
    assert what in faults[0]


def test_widths_that_the_groups_do_not_divide_are_refused():
    with pytest.raises(ValidationError, match="width 40 is no multiple of 16 groups"):
        dsco({"projector": {"widths": [32, 40, 64, 64]}})


def test_resumed_in_the_middle_of_a_step_it_makes_the_same_images(bench):
    method = dsco({"iterations": 25}, together=2)
    units = units_of(method, target_of(bench.data, 3))
    expected = made_by(method, units, bench)
    cut = method.synthesize(units, bench)
    reports = [next(cut) for _ in range(2 + 3 + 2)]  # two classes, a step, 20 of 25 iterations
    middle = stored(reports[-1].snapshot())

    run = method.synthesize(units, TinyBench(bench.data, folder=bench.folder), middle)
    done = []
    while True:
        try:
            done.append(next(run).done)
        except StopIteration as end:
            images = end.value.images
            break

    assert middle["step"] == 7
    assert middle["velocity"].abs().max() > 0
    assert done == list(range(8, 2 + 4 * 3 + 1 + 1))
    assert torch.equal(images, expected)


def test_groups_made_by_other_processes_are_the_same(bench, tmp_path):
    method = dsco(together=1)
    units = units_of(method, target_of(bench.data, 3))
    expected = made_by(method, units, bench)

    # each with a workbench of its own, in the other order
    parts = [
        made_by(method, [unit], TinyBench(bench.data, folder=tmp_path / unit.name))
        for unit in units[::-1]
    ]

    assert torch.equal(torch.cat(parts[::-1]), expected)


# ---- cost

XL = {"generator": 237.3e9, "decode": 622e9, "encode": 273e9}
"""FLOPs of one row of DiT-XL/2 and of one 256-pixel image: dsco.md, section 9."""


@pytest.mark.parametrize(
    ("n", "generator", "nopt", "decode"),
    [(10, 237, 43, 6), (50, 1187, 216, 31), (100, 2374, 432, 62)],
)
def test_the_work_of_a_class_is_the_published_one(n, generator, nopt, decode):
    found = class_flops(
        NoptSpec(), (4, 32, 32), n=n, real=1300, steps=50, rows=2, pooled=False, **XL
    )

    tera = [part / 1e12 for part in found]
    assert tera == pytest.approx([generator, nopt, 70, decode, 355, 0], rel=0.02, abs=0.5)


def test_the_template_of_a_class_takes_200_plain_samples():
    found = class_flops(NoptSpec(mode="df"), (4, 32, 32), n=10, real=1300, steps=50, rows=2, **XL)

    assert found.template / 1e12 == pytest.approx(4747, rel=0.001)
    assert (found.targets, found.encode) == (0, 0)


def test_the_row_of_dit_xl_is_what_its_layers_take():
    assert parse_dit("dit-w1152-d28-h16-p2").flops(4, 8, 32) == pytest.approx(237.3e9, rel=0.01)


@pytest.mark.parametrize("mode", ["da", "df"])
def test_the_parts_of_the_cost_add_up_to_the_work_of_the_classes(mode):
    method = dsco({"mode": mode, "template_size": 10}, together=2)
    data = tiny_data(classes=4, per_class=7)

    parts = {part.name: part for part in method.cost(target_of(data, 3), data.counts).parts}

    latent = (1, 8, 8)
    one = class_flops(
        method.nopt, latent, n=3, real=7, steps=5, rows=2, generator=1.0, decode=1.0, encode=1.0
    )
    work = parts["nopt"].flops
    assert work is not None
    assert parts["nopt"].calls * work(latent) == pytest.approx(4 * one.nopt)
    assert parts["generator"].calls * parts["generator"].rows == 4 * one.generator
    assert parts["decode"].calls * parts["decode"].rows == 4 * one.decode
    assert ("template" in parts, "targets" in parts) == (mode == "df", mode == "da")
    for part in parts.values():
        if part.probe is not None:
            part.probe(latent, torch.device("cpu"))()
