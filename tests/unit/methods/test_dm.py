"""DM against its published loop written out, and the invariants of distribution matching."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from distillhub.errors import DivergedError
from distillhub.methods.dm import DM
from distillhub.models.classifier import Classifier
from distillhub.models.zoo import build
from distillhub.ops.augment import apply_dsa, draw_dsa
from distillhub.ops.progress import Progress
from distillhub.units import Target
from tests.fakes import TinyBench, made_by, target_of, tiny_data, units_of

ARCH = "convnet2-w4"
STRATEGY = "color_crop_cutout_flip_scale_rotate"


def quick(**settings: object) -> DM:
    return DM.model_validate({"iterations": 3, "batch_real": 4, "arch": ARCH} | settings)


def synthesize(
    method: DM, bench: TinyBench, ipc: int = 2, reports: list[Progress] | None = None
) -> Tensor:
    return made_by(method, units_of(method, target_of(bench.data, ipc)), bench, reports=reports)


def losses(method: DM, bench: TinyBench, ipc: int) -> list[float]:
    reports: list[Progress] = []
    synthesize(method, bench, ipc, reports)
    return [report.metrics["loss"] for report in reports]


def network(bench: TinyBench, seed: int) -> Classifier:
    data = bench.data
    return build(
        ARCH,
        num_classes=data.num_classes,
        channels=data.channels,
        height=data.height,
        width=data.width,
        mean=data.mean,
        std=data.std,
        seed=seed,
    )


def published_loop(
    bench: TinyBench, start: Tensor, *, steps: int, batch: int, lr: float, momentum: float
) -> Tensor:
    """Algorithm 1 a class at a time, with the same draws; from and to images in [0, 1]."""
    mean, std = bench.data.mean[0], bench.data.std[0]
    x = ((start - mean) / std).requires_grad_()  # [K, n, C, H, W]
    velocity = torch.zeros_like(x)
    for step in range(steps):
        net = network(bench, bench.generator("net", step).initial_seed())
        loss = torch.zeros(())
        for label in range(len(x)):
            rows = bench.data.rows_of(label)
            order = torch.randperm(len(rows), generator=bench.generator("real", step, label))
            real = (bench.data.images(rows[order[:batch]]) - mean) / std
            draw = draw_dsa(STRATEGY, (8, 8), bench.generator("dsa", step, label))
            target = net.features_normalized(apply_dsa(real, draw)).mean(dim=0).detach()
            found = net.features_normalized(apply_dsa(x[label], draw)).mean(dim=0)
            loss = loss + (found - target).square().sum()
        (gradient,) = torch.autograd.grad(loss, x)
        velocity = momentum * velocity + gradient
        x = (x - lr * velocity).detach().requires_grad_()
    return (x.detach() * std + mean).clamp(0, 1)


def test_the_images_are_those_of_the_published_loop(tiny_bench: TinyBench) -> None:
    start = synthesize(quick(iterations=1, lr_img=1e-20), tiny_bench)

    images = synthesize(quick(lr_img=0.1), tiny_bench)

    expected = published_loop(
        tiny_bench, start.unflatten(0, (3, 2)), steps=3, batch=4, lr=0.1, momentum=0.5
    )
    # 1e-5: the sums run in another order
    torch.testing.assert_close(images, expected.flatten(0, 1), rtol=0, atol=1e-5)


def test_dm_check_01_loss_and_gradient_vanish_when_both_sets_agree(tiny_bench: TinyBench) -> None:
    whole_class = {"batch_real": 6, "dsa": STRATEGY}
    start = synthesize(quick(**whole_class, iterations=1, lr_img=1e-20), tiny_bench, ipc=6)

    found = losses(quick(**whole_class), tiny_bench, ipc=6)
    images = synthesize(quick(**whole_class), tiny_bench, ipc=6)

    assert max(found) < 1e-9  # start and batch hold the same images in another order
    torch.testing.assert_close(images, start, rtol=0, atol=1e-5)


def test_dm_check_01_the_order_of_real_images_does_not_matter() -> None:
    data = tiny_data()
    turned = data.part(torch.arange(len(data)).view(6, 3).flip(0).flatten())
    settings = {"init": "noise", "batch_real": 6}  # every step sees the whole class

    images, others = (synthesize(quick(**settings), TinyBench(d)) for d in (data, turned))

    torch.testing.assert_close(images, others, rtol=0, atol=1e-5)


def test_dm_check_02_class_order_does_not_matter(tiny_bench: TinyBench) -> None:
    method = quick()
    units = units_of(method, target_of(tiny_bench.data, 2))

    forward = made_by(method, units, tiny_bench)
    backward = made_by(method, units[::-1], tiny_bench)

    assert torch.equal(backward.unflatten(0, (3, 2)).flip(0).flatten(0, 1), forward)


def test_dm_check_02_grouping_of_classes_does_not_matter(tiny_bench: TinyBench) -> None:
    together, apart = (synthesize(quick(together=n), tiny_bench) for n in (3, 1))

    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Images and gradient recording of every pass through a network."""
    seen: list[tuple[int, bool]] = []
    embed = Classifier.features_normalized

    def watched(self: Classifier, x: Tensor) -> Tensor:
        out = embed(self, x)
        seen.append((len(x), out.requires_grad))
        return out

    monkeypatch.setattr(Classifier, "features_normalized", watched)
    return seen


def test_dm_check_08_only_synthetic_images_carry_gradients(
    tiny_bench: TinyBench, passes: list[tuple[int, bool]]
) -> None:
    synthesize(quick(iterations=1), tiny_bench)

    with_gradient = sum(n for n, gradient in passes if gradient)
    without = sum(n for n, gradient in passes if not gradient)
    assert (with_gradient, without) == (3 * 2, 3 * 4)


def test_dm_check_08_weights_of_the_random_networks_get_no_gradient(
    tiny_bench: TinyBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets: list[nn.Module] = []
    freeze = Classifier.freeze

    def watched(self: Classifier) -> Classifier:
        nets.append(self)
        return freeze(self)

    monkeypatch.setattr(Classifier, "freeze", watched)

    synthesize(quick(), tiny_bench)

    assert len(nets) == 3
    assert not any(p.requires_grad or p.grad is not None for net in nets for p in net.parameters())


def test_dm_check_08_images_keep_the_order_of_their_slots(tiny_bench: TinyBench) -> None:
    images = synthesize(quick(iterations=1, lr_img=1e-20), tiny_bench)

    pixels = tiny_bench.data.images(range(len(tiny_bench.data)))
    for position, image in enumerate(images):
        nearest = (pixels - image).abs().amax(dim=(1, 2, 3)).argmin()
        assert tiny_bench.data.labels[nearest] == position // 2


def test_dm_check_09_the_seed_decides_the_images() -> None:
    first, second, other = (synthesize(quick(), TinyBench(tiny_data(), seed=s)) for s in (1, 1, 2))

    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_images_come_nearer_to_their_class_than_they_began() -> None:
    bench = TinyBench(tiny_data(per_class=40))
    strangers = [network(bench, seed) for seed in range(1000, 1010)]

    @torch.no_grad()
    def distance(images: Tensor) -> float:
        total = 0.0
        for net in strangers:
            for label, own in enumerate(images.unflatten(0, (3, 2))):
                real = net.features(bench.data.images(bench.data.rows_of(label))).mean(dim=0)
                total += (net.features(own).mean(dim=0) - real).square().sum().item()
        return total

    before = distance(synthesize(quick(iterations=1, lr_img=1e-20), bench))
    after = distance(synthesize(quick(iterations=60, batch_real=40, dsa=None), bench))

    assert after < before / 2


def test_every_class_meets_the_same_network_at_a_step(tiny_bench: TinyBench) -> None:
    synthesize(quick(together=1), tiny_bench)

    networks = [names for names in tiny_bench.drawn if names[0] == "net"]
    assert networks == [("net", 0), ("net", 1), ("net", 2)] * 3


def test_draws_belong_to_a_step_and_a_class(tiny_bench: TinyBench) -> None:
    synthesize(quick(together=3), tiny_bench)

    for kind in ("real", "dsa"):
        named = [names[1:] for names in tiny_bench.drawn if names[0] == kind]
        assert sorted(named) == [(step, label) for step in range(3) for label in range(3)]


def test_a_class_smaller_than_the_batch_gives_all_its_images(
    tiny_bench: TinyBench, passes: list[tuple[int, bool]]
) -> None:
    synthesize(quick(iterations=1, batch_real=256), tiny_bench)

    assert sum(n for n, gradient in passes if not gradient) == 3 * 6


def test_noise_is_standard_normal_before_it_is_clipped(tiny_bench: TinyBench) -> None:
    images = synthesize(quick(iterations=1, lr_img=1e-20, init="noise"), tiny_bench, ipc=50)

    inside = images[(images > 0) & (images < 1)]  # mean 0.4 and std 0.25: from -1.6 to 2.4
    share = len(inside) / images.numel()
    assert share == pytest.approx(0.937, abs=0.01)  # Phi(2.4) - Phi(-1.6)
    assert images.median() == pytest.approx(0.4, abs=0.01)


def test_without_augmentation_none_is_drawn(tiny_bench: TinyBench) -> None:
    synthesize(quick(dsa=None), tiny_bench)

    assert not [names for names in tiny_bench.drawn if names[0] == "dsa"]


def test_a_diverging_loss_names_step_and_unit(tiny_bench: TinyBench) -> None:
    method = quick(lr_img=1e30, momentum=0.0, dsa=None, arch="convnet2-w4-none", together=2)

    with pytest.raises(DivergedError, match=r"synthesize class-0000: .* (inf|nan) at step [12]"):
        synthesize(method, tiny_bench)


def faults(target: Target, counts: Sequence[int] = (6, 6, 6), **settings: object) -> list[str]:
    return list(quick(**settings).check(target, counts))


def test_a_network_too_deep_for_the_images_is_a_fault() -> None:
    (fault,) = faults(Target(3, 1, 3, 8, 8), arch="convnet5-w4")

    assert "8 x 8" in fault


def test_batch_norm_is_a_fault() -> None:
    (fault,) = faults(Target(3, 1, 3, 8, 8), arch="convnet2-w4-bn")

    assert "use convnet2-w4-in" in fault


@pytest.mark.parametrize(
    ("arch", "other"),
    [("alexnet-bn", "alexnet"), ("mobilenetv2", "convnet3"), ("resnet18-ap", "convnet3")],
)
def test_what_is_offered_in_place_of_batch_norm_exists(arch: str, other: str) -> None:
    (fault,) = faults(Target(3, 1, 3, 32, 32), arch=arch)

    assert fault.endswith(f"which {arch} has; use {other}")


def test_more_images_than_a_class_holds_is_a_fault_of_real_starts_alone() -> None:
    target = Target(3, 5, 1, 8, 8)

    assert faults(target, (6, 4, 6)) == ["ipc is 5 but class 1 has 4 images to start from"]
    assert faults(target, (6, 4, 6), init="noise") == []


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(ValueError, match="'color_blur' must join"):
        quick(dsa="color_blur")


def test_cost_counts_the_images_of_a_call() -> None:
    target = Target(10, 2, 1, 8, 8)

    cost = quick(together=4, iterations=100, batch_real=50).cost(target, [60] * 9 + [20])

    # 3 calls of 100 steps; 9 * 50 + 20 real and 20 synthetic images over 3 calls
    assert cost[:4] == (300, ARCH, 156, 6)


@pytest.mark.parametrize("loss", ["squared", "bayesian"])
def test_half_precision_stays_near_the_full_one(tiny_bench: TinyBench, loss: str) -> None:
    full = synthesize(quick(loss=loss), tiny_bench)

    half = synthesize(quick(loss=loss, precision="bfloat16"), tiny_bench)

    assert not torch.equal(half, full)
    assert (half - full).abs().mean() < 0.02


def test_full_precision_is_not_written_out() -> None:
    assert "precision" not in quick().model_dump()
    assert quick(precision="tf32").model_dump()["precision"] == "tf32"


def test_the_loss_of_bacon_can_take_the_place_of_the_distance(tiny_bench: TinyBench) -> None:
    squared = synthesize(quick(lr_img=0.1), tiny_bench)

    bayesian = synthesize(quick(lr_img=0.1, loss="bayesian"), tiny_bench)

    assert not torch.equal(squared, bayesian)


def test_a_class_of_one_image_has_no_deviation_for_the_loss_of_bacon() -> None:
    target = Target(2, 1, 1, 8, 8)

    assert list(quick().check(target, (5, 1))) == []
    assert "a deviation needs two" in "".join(quick(loss="bayesian").check(target, (5, 1)))


def test_a_batch_of_one_image_has_no_deviation_for_the_loss_of_bacon() -> None:
    assert faults(Target(3, 1, 1, 8, 8), batch_real=1) == []
    assert faults(Target(3, 1, 1, 8, 8), loss="bayesian", batch_real=2) == []
    assert faults(Target(3, 1, 1, 8, 8), loss="bayesian", batch_real=1) == [
        "batch_real is 1 but loss: bayesian needs a deviation; set batch_real: 2 or more"
    ]
