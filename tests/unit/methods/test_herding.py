"""Herding as a method: which features it herds, and that it beats chance at the mean."""

import torch

from distillhub.methods.herding import Herding
from distillhub.ops.selection import herd
from distillhub.units import Target
from tests.fakes import TinyBench, made_by, target_of, units_of


def test_images_are_the_herd_of_the_teacher_features(tiny_bench: TinyBench) -> None:
    method = Herding()

    images = made_by(method, units_of(method, target_of(tiny_bench.data, 2)), tiny_bench)

    own = tiny_bench.data.images(tiny_bench.data.rows_of(1))
    with torch.no_grad():
        picked = herd(tiny_bench.network("teacher").features(own), 2)
    assert torch.equal(images[2:4], own[picked])


def test_pixels_can_be_herded_without_a_teacher(tiny_bench: TinyBench) -> None:
    method = Herding(features="pixels")

    images = made_by(method, units_of(method, target_of(tiny_bench.data, 2)), tiny_bench)

    own = tiny_bench.data.images(tiny_bench.data.rows_of(2))
    assert torch.equal(images[4:], own[herd(own.flatten(1), 2)])
    assert tiny_bench.networks == {}


def test_a_teacher_is_needed_for_its_features_alone() -> None:
    assert Herding().needs == ("teacher",)
    assert Herding(features="pixels").needs == ()


def test_the_check_names_a_class_with_too_few_images() -> None:
    faults = list(Herding().check(Target(2, 5, 1, 8, 8), (4, 6)))

    assert faults == ["ipc is 5 but class 0 has 4 training images"]
