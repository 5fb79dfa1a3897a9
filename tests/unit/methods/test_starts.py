"""Starts of optimised images: every kind, against a plain reading of the published choice."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from distillhub.data import codec
from distillhub.data.specs import ImageFormat
from distillhub.errors import DataError
from distillhub.methods._starts import StartSpec, scoring, starting_images
from distillhub.ops.formation import expand
from distillhub.ops.patches import draw_whole_boxes
from distillhub.ops.pixels import denormalize, normalize
from distillhub.records.distilled import DistilledSet
from distillhub.records.images import EncodedImages
from distillhub.units import Slot, Target
from tests.fakes import TinyBench, tiny_data

OBSERVERS = ("observer-0", "observer-1")
SLOTS = [Slot(label, number) for label in range(3) for number in range(4)]


class BuildBench(TinyBench):
    """A workbench with a build of several images per class, or of mosaics."""

    per_class = 5
    formation = 1

    def artifact(self, base: str) -> DistilledSet:
        data = tiny_data(per_class=self.per_class, seed=len(base))
        files = codec.encode(data.images(range(len(data))), ImageFormat())
        meta = {"formation": self.formation}
        return DistilledSet(
            EncodedImages.of(files), data.labels, data.class_names, None, None, meta
        )


def bench_with(**choices: int) -> BuildBench:
    bench = BuildBench(tiny_data(per_class=7), seed=choices.get("seed", 0))
    bench.per_class = choices.get("per_class", 5)
    bench.formation = choices.get("formation", 1)
    return bench


def spec_of(kind: str, **fields: object) -> StartSpec:
    named = {"build": "base"} if kind == "build" else {}
    return StartSpec.model_validate({"kind": kind, **named, **fields})


def start(
    spec: StartSpec, bench: TinyBench, slots: Sequence[Slot] = SLOTS, *, pixels: bool = False
) -> Tensor:
    """Starting images; with `pixels` as uint8."""
    images = starting_images(spec, slots, bench, OBSERVERS)
    if not pixels:
        return images
    return (denormalize(images, bench.data.mean, bench.data.std) * 255).round().to(torch.uint8)


def found_in(images: Tensor, pool: Tensor) -> list[int]:
    """The row of the pool that each image is a copy of."""
    equal = (images[:, None] == pool[None]).flatten(2).all(dim=2)
    assert bool(equal.any(dim=1).all())
    return [int(row.nonzero()[0]) for row in equal]


# ---- all kinds


@pytest.mark.parametrize("sampling", ["without_replacement", "with_replacement"])
@pytest.mark.parametrize("kind", ["noise", "real", "build", "patches"])
def test_an_image_does_not_depend_on_the_other_slots(kind: str, sampling: str) -> None:
    if kind == "patches":
        sampling = "without_replacement"
    spec = spec_of(kind, sampling=sampling)
    together = start(spec, bench_with())

    order = [SLOTS[place] for place in (7, 2, 11, 0)]
    apart = start(spec, bench_with(), order)
    alone = torch.cat([start(spec, bench_with(), [slot]) for slot in SLOTS])

    assert torch.equal(apart, together[[7, 2, 11, 0]])
    assert torch.equal(alone, together)


@pytest.mark.parametrize("kind", ["noise", "real", "build", "patches"])
def test_images_belong_to_the_seed(kind: str) -> None:
    spec = spec_of(kind)

    first, again, other = (start(spec, bench_with(seed=seed)) for seed in (0, 0, 1))

    assert first.shape == (12, 1, 8, 8)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", ["real", "build", "patches"])
def test_about_half_of_the_images_are_mirrored(kind: str) -> None:
    slots = [Slot(label, number) for label in range(3) for number in range(5)]

    plain = start(spec_of(kind, flip=False), bench_with(), slots)
    flipped = start(spec_of(kind), bench_with(), slots)

    mirrored = [torch.equal(one, other.flip(-1)) for one, other in zip(flipped, plain, strict=True)]
    kept = [torch.equal(one, other) for one, other in zip(flipped, plain, strict=True)]
    assert all(a or b for a, b in zip(mirrored, kept, strict=True))
    assert 3 <= sum(mirrored) <= 12


# ---- noise


def test_noise_is_standard_normal_in_normalised_space() -> None:
    noise = start(spec_of("noise"), bench_with(), [Slot(0, number) for number in range(300)])

    assert abs(float(noise.mean())) < 0.03
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    assert len({float(image.sum()) for image in noise}) == 300


# ---- real images and those of a build


def test_real_starts_are_different_training_images_of_the_class() -> None:
    bench = bench_with()
    slots = [Slot(label, number) for label in range(3) for number in range(7)]

    images = start(spec_of("real", flip=False), bench, slots, pixels=True)

    rows = found_in(images, bench.data.pixels(range(21)))
    assert bench.data.labels[rows].tolist() == [slot.label for slot in slots]
    assert len(set(rows)) == 21
    assert rows[:7] != sorted(rows[:7])


def test_section_13_10_with_replacement_real_images_come_again() -> None:
    bench = bench_with()
    spec = spec_of("real", flip=False, sampling="with_replacement")

    images = start(spec, bench, [Slot(1, number) for number in range(40)], pixels=True)

    rows = found_in(images, bench.data.pixels(range(21)))
    assert set(bench.data.labels[rows].tolist()) == {1}
    assert 5 <= len(set(rows)) <= 7


def test_starts_of_a_build_are_its_whole_images_without_repetition() -> None:
    bench = bench_with()
    base = bench.artifact("base")
    slots = [Slot(label, number) for label in range(3) for number in range(5)]

    images = start(spec_of("build", flip=False), bench, slots, pixels=True)

    rows = found_in(images, base.pixels(range(15)))
    assert base.labels[rows].tolist() == [slot.label for slot in slots]
    assert len(set(rows)) == 15


def test_starts_of_a_build_of_mosaics_are_their_parts_at_full_size() -> None:
    bench = bench_with(per_class=1, formation=2)
    parts = expand(bench.artifact("base").images(range(3)), 2)

    images = start(spec_of("build", flip=False), bench, [Slot(2, n) for n in range(4)])

    wanted = normalize(parts[8:], bench.data.mean, bench.data.std)
    distance = (images[:, None] - wanted[None]).abs().flatten(2).amax(dim=2)
    assert sorted(distance.argmin(dim=1).tolist()) == [0, 1, 2, 3]
    assert float(distance.amin(dim=1).max()) < 1e-5


@pytest.mark.parametrize(
    ("kind", "number", "words"),
    [
        ("real", 7, "class 0 has 7 images to start from, image 8 needs 8"),
        ("build", 5, "class 0 has 5 images to start from, image 6 needs 6"),
        ("patches", 7, "class 0 has 28 scored crops, image 8 needs 32"),
    ],
)
def test_a_slot_without_an_image_of_its_own_is_an_error(kind: str, number: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        start(spec_of(kind), bench_with(), [Slot(0, number)])


# ---- collages of crops


@torch.no_grad()
def clearness(bench: TinyBench, image: Tensor, label: int) -> float:
    """Cross-entropy of one image [1, C, H, W] under the mean logits of the observers."""
    logits = [bench.network(role)(image) for role in OBSERVERS]
    return functional.cross_entropy(sum(logits) / 2, torch.tensor([label])).item()


def test_section_5_collages_hold_the_clearest_crops_in_the_order_of_their_ranks() -> None:
    bench = bench_with()
    spec = spec_of("patches", flip=False, pool=5, crops=3, box_group=2)

    images = start(spec, bench, [Slot(1, 0), Slot(1, 2)], pixels=False)

    every = bench.data.rows_of(1).tolist()
    rows = sorted(every, key=lambda row: clearness(bench, bench.data.images([row]), 1))[:5]
    generator = bench.generator("start crops", 1)
    boxes = draw_whole_boxes(3 * 3, 8, 8, generator=generator).view(3, 3, 4).tolist()
    crops = []
    for place, row in enumerate(rows):
        for top, left, tall, wide in boxes[place // 2]:
            crop = functional.interpolate(
                bench.data.images([row])[:, :, top : top + tall, left : left + wide],
                (8, 8),
                mode="bilinear",
                antialias=True,
            )
            crops.append((clearness(bench, crop, 1), crop))
    crops.sort(key=lambda pair: pair[0])
    small = [
        functional.interpolate(crop, (4, 4), mode="bilinear", antialias=True) for _, crop in crops
    ]
    for image, first in ((images[0], 0), (images[1], 8)):
        upper = torch.cat(small[first : first + 2], dim=3)
        lower = torch.cat(small[first + 2 : first + 4], dim=3)
        wanted = normalize(torch.cat([upper, lower], dim=2), bench.data.mean, bench.data.std)
        assert torch.allclose(image, wanted[0], atol=1e-4)


def test_a_class_is_scored_once_for_the_same_observers_and_seed(tmp_path) -> None:
    passes: list[int] = []

    def starts(bench: TinyBench, spec: StartSpec) -> int:
        bench.network("observer-1").net.register_forward_pre_hook(
            lambda _, args: passes.append(len(args[0]))
        )
        before = sum(passes)
        starting_images(spec, SLOTS, bench, OBSERVERS)
        return sum(passes) - before

    data = tiny_data(per_class=7)
    spec = spec_of("patches", pool=5)
    expected = spec.scored(data.counts)
    assert expected == 3 * (7 + 5 * 4)
    assert starts(TinyBench(data, folder=tmp_path), spec) == expected
    assert starts(TinyBench(data, folder=tmp_path), spec) == 0
    assert starts(TinyBench(data, folder=tmp_path), spec.model_copy(update={"factor": 1})) == 0
    assert starts(TinyBench(data, folder=tmp_path, seed=1), spec) == expected
    trained = TinyBench(data, folder=tmp_path)
    trained.network("observer-0").net.head.bias.data.add_(1)
    assert starts(trained, spec) == expected


def test_crops_are_scored_class_by_class_with_progress(tmp_path, monkeypatch) -> None:
    bench = TinyBench(tiny_data(per_class=7), folder=tmp_path)
    spec = spec_of("patches", pool=5)

    reports = list(scoring(spec, SLOTS[2:], bench, OBSERVERS))

    assert [(report.done, report.total) for report in reports] == [(1, 3), (2, 3), (3, 3)]
    monkeypatch.setattr("distillhub.methods._starts._score", pytest.fail)
    assert start(spec, bench).shape == (12, 1, 8, 8)  # of the scores that are there


def test_only_crops_are_scored() -> None:
    for kind in ("noise", "real", "build"):
        assert list(scoring(spec_of(kind), SLOTS, bench_with(), OBSERVERS)) == []


def test_other_kinds_ask_no_observer() -> None:
    bench = bench_with()

    for kind in ("noise", "real", "build"):
        start(spec_of(kind), bench)
        assert spec_of(kind).scored((7, 7, 7)) == 0

    assert bench.networks == {}


# ---- specs


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "build"}, "build: names the recipe of kind: build"),
        ({"kind": "real", "build": "base"}, "build: names the recipe of kind: build"),
        ({"kind": "patches", "sampling": "with_replacement"}, "is for kind: real and kind: build"),
        ({"kind": "rded"}, "Input should be"),
        ({"kind": "real", "pools": 3}, "Extra inputs"),
    ],
)
def test_specs_that_contradict_themselves_are_refused(
    fields: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        StartSpec.model_validate(fields)


def test_a_build_is_a_base_of_its_recipe() -> None:
    assert spec_of("build").bases == ("base",)
    assert spec_of("real").bases == ()


def test_classes_with_too_few_images_are_named_before_work() -> None:
    target, counts = Target(2, 4, 1, 8, 8), (4, 3)

    assert list(spec_of("real").check(target, counts)) == [
        "ipc is 4 but class 1 has 3 images to start from; sampling: with_replacement may repeat "
        "them"
    ]
    assert not list(spec_of("real", sampling="with_replacement").check(target, counts))
    assert not list(spec_of("noise").check(target, counts))


def test_crops_must_suffice_and_parts_need_pixels() -> None:
    spec = spec_of("patches", pool=3, crops=4)

    assert not list(spec.check(Target(1, 3, 1, 8, 8), (9,)))
    assert list(spec.check(Target(1, 4, 1, 8, 8), (9,))) == [
        "4 images of 2 x 2 crops are 16 crops per class, 4 of each of 3 images of class 0 do not "
        "suffice; raise init.crops or init.pool"
    ]
    parts = list(spec_of("patches", factor=9, crops=99).check(Target(1, 1, 1, 8, 8), (9,)))
    assert parts == ["8 x 8 pixels have no 9 parts a side"]


def test_a_build_with_fewer_images_than_asked_for_is_refused() -> None:
    target = Target(3, 4, 1, 8, 8)

    assert not list(spec_of("build").check_bases(target, {"base": 4}))
    assert list(spec_of("build").check_bases(target, {"base": 3})) == [
        "ipc is 4 but build base has 3 images per class to start from; sampling: with_replacement "
        "may repeat them"
    ]
    assert not list(spec_of("build", sampling="with_replacement").check_bases(target, {"base": 3}))


def test_with_ten_images_replacement_leaves_about_a_third_unused() -> None:
    bench = BuildBench(tiny_data(classes=2, per_class=10))
    spec, shares = spec_of("real", flip=False, sampling="with_replacement"), []

    for seed in range(40):
        bench.seed = seed
        images = start(spec, bench, [Slot(0, number) for number in range(10)], pixels=True)
        rows = found_in(images, bench.data.pixels(range(20)))
        shares.append(1 - len(set(rows)) / 10)

    assert sum(shares) / 40 == pytest.approx(math.exp(10 * math.log(0.9)), abs=0.06)  # 0.35
