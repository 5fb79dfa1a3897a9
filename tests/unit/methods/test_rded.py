"""RDED against a plain reading of its algorithm. Numbers are of the paper's notes."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from distillhub.data.real import RealData
from distillhub.errors import PipelineError
from distillhub.methods.rded import RDED
from distillhub.units import Target
from tests.fakes import TinyBench, made_by, target_of, tiny_data, units_of

EVERYTHING = (1.0, 1.0)


def plain_images(*, classes: int = 2, per_class: int = 8, side: int = 6) -> RealData:
    """Images of one grey each, all different: every crop tells where it comes from."""
    count = classes * per_class
    pixels = (torch.arange(count) * (250 // count)).view(count, 1, 1, 1).expand(-1, 1, side, side)
    labels = torch.arange(count) % classes
    return RealData.in_memory(pixels.to(torch.uint8), labels, [str(c) for c in range(classes)])


def made(method: RDED, bench: TinyBench, ipc: int) -> Tensor:
    return made_by(method, units_of(method, target_of(bench.data, ipc)), bench)


@torch.no_grad()
def losses_of(bench: TinyBench, crops: Sequence[Tensor], label: int) -> list[float]:
    """Cross-entropy of crops in [0, 1], one by one, padded with the mean colour."""
    net, size = bench.network("observer-0"), bench.data.height
    found = []
    for crop in crops:
        field = torch.zeros(1, crop.shape[0], size, size)
        at = (size - crop.shape[1]) // 2
        field[:, :, at : at + crop.shape[1], at : at + crop.shape[2]] = net.normalize(crop[None])
        found.append(functional.cross_entropy(net.normalized(field), torch.tensor([label])).item())
    return found


def candidates(method: RDED, bench: TinyBench, label: int) -> list[list[Tensor]]:
    """The crops of a class, one list per image, cut and resized one by one."""
    side = bench.data.height // method.factor
    rows, boxes = method._candidates(label, bench)
    found = []
    for row, here in zip(rows.tolist(), boxes.tolist(), strict=True):
        image = bench.data.images([row])
        cuts = [image[:, :, t : t + h, w : w + v] for t, w, h, v in here]
        found.append(
            [
                functional.interpolate(
                    cut, (side, side), mode="bilinear", antialias=True, align_corners=False
                )[0]
                for cut in cuts
            ]
        )
    return found


# ---- the algorithm


def test_a7_01_with_one_crop_per_image_the_lowest_losses_are_the_images(
    tiny_bench: TinyBench,
) -> None:
    images = made(RDED(crops=1), tiny_bench, 3)

    for label in range(3):
        crops = [one for (one,) in candidates(RDED(crops=1), tiny_bench, label)]
        losses = losses_of(tiny_bench, crops, label)
        best = sorted(range(6), key=losses.__getitem__)[:3]
        wanted = torch.stack([crops[index] for index in best])
        assert torch.allclose(images[3 * label : 3 * label + 3], wanted, atol=1e-5)


def test_a2_collages_hold_the_best_crop_of_each_image_in_interleaved_ranks() -> None:
    bench = TinyBench(tiny_data(per_class=10, channels=3))
    method = RDED(factor=2, crops=3)

    images = made(method, bench, 2)

    for label in range(3):
        survivors = []
        for cuts in candidates(method, bench, label):
            losses = losses_of(bench, cuts, label)
            best = min(range(3), key=losses.__getitem__)
            survivors.append((losses[best], cuts[best]))
        survivors.sort(key=lambda pair: pair[0])
        for i in range(2):
            tiles = [survivors[k * 2 + i][1] for k in range(4)]
            upper, lower = torch.cat(tiles[:2], dim=2), torch.cat(tiles[2:], dim=2)
            wanted = torch.cat([upper, lower], dim=1)
            assert torch.allclose(images[2 * label + i], wanted, atol=1e-5)


def test_a7_02_every_tile_comes_from_a_source_image_of_its_own() -> None:
    bench = TinyBench(plain_images())

    images = made(RDED(factor=2), bench, 2)

    greys = (images * 255).round().long()[:, 0, ::3, ::3].reshape(2, 8)
    for label in range(2):
        assert len(greys[label].unique()) == 8
        own = bench.data.pixels(bench.data.rows_of(label))[:, 0, 0, 0].tolist()
        assert set(greys[label].tolist()) <= set(own)


def test_an_image_may_give_several_tiles_where_that_is_allowed() -> None:
    bench = TinyBench(plain_images(per_class=2))

    images = made(RDED(factor=2, dedupe=False, scale=EVERYTHING, crops=4), bench, 1)

    greys = (images * 255).round().long()[:, 0, ::3, ::3].reshape(2, 4)
    assert [len(row.unique()) for row in greys] == [1, 1]  # four equal crops of the clearest image


def test_a7_03_the_order_of_the_images_does_not_matter() -> None:
    data = tiny_data(per_class=8)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    other = RealData.in_memory(
        data.pixels(order), data.labels[order], data.class_names, mean=data.mean, std=data.std
    )
    method = RDED(factor=2, scale=EVERYTHING, crops=1)

    images = made(method, TinyBench(data), 2)

    assert torch.equal(made(method, TinyBench(other), 2), images)


def test_a7_04_as_many_tiles_as_images_use_every_image_once() -> None:
    bench = TinyBench(plain_images())

    images = made(RDED(factor=2, pool=8), bench, 2)

    greys = (images * 255).round().long()[:, 0, ::3, ::3].reshape(2, 8).sort(dim=1).values
    for label in range(2):
        own = bench.data.pixels(bench.data.rows_of(label))[:, 0, 0, 0].long()
        assert torch.equal(greys[label], own.sort().values)


def test_a7_05_sides_that_do_not_divide_are_filled(tiny_bench: TinyBench) -> None:
    images = made(RDED(factor=2), TinyBench(plain_images(side=7)), 1)

    greys = (images * 255).round().long()
    assert images.shape[2:] == (7, 7)
    for rows in (slice(0, 4), slice(4, 7)):
        for cols in (slice(0, 4), slice(4, 7)):
            assert all(len(one.unique()) == 1 for one in greys[:, 0, rows, cols])


# ---- what the observer sees


def seen_by_observer(method: RDED, bench: TinyBench) -> Tensor:
    seen: list[Tensor] = []
    net = bench.network("observer-0").net
    with_hook = net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    made(method, bench, 1)
    with_hook.remove()
    return torch.cat(seen)


def test_crops_are_padded_with_the_mean_colour_and_not_enlarged() -> None:
    seen = seen_by_observer(RDED(factor=2), TinyBench(plain_images(side=8)))

    border = torch.ones(8, 8, dtype=torch.bool)
    border[2:6, 2:6] = False
    assert bool((seen[:, :, border] == 0).all())
    assert bool((seen[:, :, ~border] != 0).any())


def test_crops_are_enlarged_where_that_is_asked_for() -> None:
    seen = seen_by_observer(RDED(factor=2, upscale=True), TinyBench(plain_images(side=8)))

    assert all(len(image.unique()) == 1 for image in seen.mul(1e3).round())


def test_planned_images_are_those_that_the_observer_sees() -> None:
    bench = TinyBench(tiny_data(per_class=7))
    method = RDED(pool=5, crops=3)

    seen = seen_by_observer(method, bench)

    cost = method.cost(target_of(bench.data, 1), bench.data.counts)
    assert len(seen) == cost.steps * cost.forward == 3 * 5 * 3
    assert cost.arch == "observer-0"


def test_the_named_observer_scores() -> None:
    bench = TinyBench(tiny_data())

    made(RDED(observer=2), bench, 1)

    assert set(bench.networks) == {"observer-2"}


def test_an_observer_without_finite_scores_is_an_error(tiny_bench: TinyBench) -> None:
    tiny_bench.network("observer-0").net.head.bias.data.fill_(torch.nan)

    with pytest.raises(PipelineError, match="no finite score to an image of class 0"):
        made(RDED(), tiny_bench, 1)


# ---- draws


def test_the_pool_limits_the_images_and_belongs_to_the_seed() -> None:
    data = plain_images()

    drawn = [
        made(RDED(pool=3), TinyBench(data, seed=seed), 3).mean(dim=(1, 2, 3)).sort().values
        for seed in (0, 0, 1)
    ]

    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_boxes_of_an_image_differ(tiny_bench: TinyBench) -> None:
    _, boxes = RDED(crops=5)._candidates(0, tiny_bench)

    assert boxes.shape == (6, 5, 4)
    assert all(len(here.unique(dim=0)) > 1 for here in boxes)
    assert torch.equal(boxes[..., 2], boxes[..., 3])


# ---- checks


def test_more_crops_than_the_pool_or_a_class_gives_are_refused() -> None:
    faults = list(RDED(factor=2, pool=300).check(Target(2, 100, 3, 32, 32), (500, 350)))

    assert faults == [
        "400 crops per class (100 images of 2 x 2) are more than pool: 300 gives; set pool to 400",
        "400 crops per class (100 images of 2 x 2) are more than the 350 training images of class "
        "1 give",
    ]


def test_several_crops_per_image_go_further() -> None:
    target = Target(1, 100, 3, 32, 32)

    assert not list(RDED(factor=2, pool=300, crops=2, dedupe=False).check(target, (350,)))


def test_parts_without_pixels_and_scales_that_fall_are_refused() -> None:
    faults = list(RDED(factor=9, scale=(0.5, 0.1)).check(Target(1, 1, 1, 8, 8), (100,)))

    assert faults == [
        "8 x 8 pixels have no 9 parts per side",
        "scale is [0.5, 0.1], its ends must rise and reach above 0",
    ]
