"""Plain sampling from a diffusion transformer."""

import pytest
import torch

from distillhub.methods.dit import DiT
from distillhub.ops.diffusion import Schedule
from tests.fakes import TinyBench, made_by, target_of, tiny_data, units_of


def images_of(bench: TinyBench, ipc: int = 3, **settings) -> torch.Tensor:
    method = DiT(steps=5, **settings)
    return made_by(method, units_of(method, target_of(bench.data, ipc)), bench)


def test_classes_alone_or_together_give_the_same_images(tiny_bench):
    alone, together = (images_of(tiny_bench, together=count) for count in (1, 3))

    assert torch.allclose(alone, together, atol=1e-5)


def test_it_is_the_sampling_loop_step_by_step(tiny_bench):
    label, n = 1, 3
    diffusion, schedule = tiny_bench.diffusion(), Schedule.linear(5)
    z = torch.randn((n, 1, 8, 8), generator=tiny_bench.generator("init", label))
    for index in (4, 3, 2, 1, 0):
        step = diffusion.predict(
            z, torch.full((n,), label), index, schedule, cfg=2.0, cfg_channels=3
        )
        noise = torch.randn(z.shape, generator=tiny_bench.generator("noise", label, index))
        z = step.mean if index == 0 else step.mean + step.sigma * noise

    found = images_of(tiny_bench, together=1, cfg=2.0)

    assert torch.equal(found[label * n : (label + 1) * n], diffusion.decode(z))


def test_guidance_and_start_change_the_images(tiny_bench):
    plain, guided = (images_of(tiny_bench, 5, cfg=cfg) for cfg in (1.0, 3.0))
    spread = images_of(tiny_bench, 5, cfg=1.0, init_noise="lattice")

    assert not torch.allclose(plain, guided, atol=1e-3)
    assert not torch.allclose(plain, spread, atol=1e-3)


def test_the_transformer_gets_its_own_labels():
    first, second = TinyBench(tiny_data()), TinyBench(tiny_data())
    second.diffusion().labels = (2, 1, 0)

    straight, turned = (images_of(bench, 1, together=1) for bench in (first, second))

    assert torch.equal(straight[1], turned[1])
    assert not torch.allclose(straight[0], turned[0], atol=1e-3)


@pytest.mark.parametrize(("ipc", "noise", "faults"), [(4, "lattice", 1), (5, "lattice", 0)])
def test_a_lattice_of_few_images_is_refused(ipc, noise, faults):
    target = target_of(tiny_data(), ipc)

    found = list(DiT(init_noise=noise).check(target, (9, 9, 9)))

    assert len(found) == faults


def test_guidance_doubles_the_rows_that_are_planned():
    target = target_of(tiny_data(), 4)
    guided, plain = (
        {part.name: part for part in DiT(cfg=cfg, together=3).cost(target, ()).parts}
        for cfg in (4.0, 1.0)
    )

    assert (guided["generator"].calls, guided["generator"].rows) == (50, 24)
    assert (plain["generator"].calls, plain["generator"].rows) == (50, 12)
    assert guided["decode"].rows == 12
