"""Random selection: uniform, without replacement, the same however it is asked for."""

from collections import Counter

import pytest
import torch

from distillhub.methods.random import Random, draw
from distillhub.units import Target, derive_seed
from tests.fakes import TinyBench, made_by, target_of, tiny_data, units_of


def test_a_draw_is_class_major_without_repetition() -> None:
    data = tiny_data()

    rows = draw(data, 4, lambda label: torch.Generator().manual_seed(label))

    assert data.labels[rows].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(rows.unique()) == 12


def test_a_method_run_and_a_draw_with_its_generators_agree(tiny_bench: TinyBench) -> None:
    method = Random()

    images = made_by(method, units_of(method, target_of(tiny_bench.data, 3)), tiny_bench)

    rows = draw(tiny_bench.data, 3, lambda label: tiny_bench.generator("random", label))
    assert torch.equal(images, tiny_bench.data.images(rows))


def test_every_image_of_a_class_is_drawn_equally_often() -> None:
    data = tiny_data(classes=2, per_class=4)
    drawn: Counter[int] = Counter()

    for seed in range(600):
        seeded = [torch.Generator().manual_seed(derive_seed(seed, label)) for label in range(2)]
        drawn.update(draw(data, 2, seeded.__getitem__).tolist())

    assert len(drawn) == 8
    assert all(240 < count < 360 for count in drawn.values())  # 300, standard deviation 12


def test_a_larger_set_starts_with_the_smaller_one() -> None:
    data = tiny_data()

    small, large = (
        draw(data, ipc, lambda label: torch.Generator().manual_seed(label)) for ipc in (2, 5)
    )

    assert torch.equal(large.view(3, 5)[:, :2], small.view(3, 2))


def test_a_class_with_too_few_images_is_refused() -> None:
    with pytest.raises(ValueError, match="class 0 has 6 images, 7 are asked for"):
        draw(tiny_data(), 7, lambda _: torch.Generator())


def test_the_check_names_every_class_with_too_few_images() -> None:
    faults = list(Random().check(Target(3, 5, 1, 8, 8), (4, 6, 3)))

    assert faults == [
        "ipc is 5 but class 0 has 4 training images",
        "ipc is 5 but class 2 has 3 training images",
    ]
