"""What the recover loop computes beside network passes, against closed forms and torchvision."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import resized_crop

from distillhub.ops.recovering import (
    densification,
    draw_look,
    flatness,
    image_norm,
    piece_norms,
    resampling,
    smallest_crop,
    total_variation,
)

SIZE = (9, 12)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


# ---- looks


def test_a_crop_is_that_of_torchvision() -> None:
    x = noise(2, 3, *SIZE)
    tops, lefts = torch.tensor([2.0]), torch.tensor([5.0])
    rows, columns = resampling(tops, torch.tensor([4.0]), 9), resampling(lefts, tops + 4, 12)

    found = rows[0] @ x @ columns[0].T

    expected = resized_crop(x, 2, 5, 4, 6, list(SIZE), antialias=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_look_without_crop_flip_and_roll_changes_no_bit() -> None:
    x = noise(2, 1, *SIZE)

    look = draw_look(SIZE, generator=generator(), scale=None, flip=False)

    assert torch.equal(look.at(x), x)


def test_half_of_the_looks_are_mirrored() -> None:
    x = noise(1, 1, *SIZE)

    looks = [draw_look(SIZE, generator=generator(s), scale=None).at(x) for s in range(200)]

    mirrored = sum(torch.equal(look, x.flip(-1)) for look in looks)
    assert sum(torch.equal(look, x) for look in looks) == 200 - mirrored
    assert 70 < mirrored < 130  # 4 standard deviations


def test_a_roll_reaches_from_none_to_the_largest_shift_on_both_axes() -> None:
    x = noise(1, 1, *SIZE)
    shifts = {(dy, dx): x.roll((dy, dx), (2, 3)) for dy in range(3) for dx in range(3)}

    looks = [
        draw_look(SIZE, generator=generator(s), scale=None, flip=False, roll=2).at(x)
        for s in range(200)
    ]

    found = [shift for look in looks for shift, y in shifts.items() if torch.equal(look, y)]
    assert len(found) == 200
    assert set(found) == set(shifts)


def test_a_crop_is_flipped_before_it_is_rolled() -> None:
    x = noise(1, 1, *SIZE)
    look = next(
        draw_look(SIZE, generator=generator(seed), scale=None, roll=5)
        for seed in range(99)
        if torch.rand(1, generator=generator(seed)) < 0.5  # mirrored
        and torch.randint(6, (2,), generator=_after_flip(seed))[1] == 3
    )

    shifts = [torch.equal(look.at(x), x.flip(-1).roll((dy, 3), (2, 3))) for dy in range(6)]

    assert any(shifts)


def _after_flip(seed: int) -> torch.Generator:
    drawn = generator(seed)
    torch.rand(1, generator=drawn)
    return drawn


def test_crops_cover_the_shares_that_were_asked_for() -> None:
    white = torch.ones(1, 1, 32, 32)
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)

    for seed in range(50):
        look = draw_look(
            (32, 32), generator=generator(seed), scale=(0.5, 1.0), ratio=(1, 1), flip=False
        )
        seen = look.at(ramp)
        width = (seen.max() - seen.min()).item()
        assert math.sqrt(0.5) - 0.1 < width <= 1
        torch.testing.assert_close(look.at(white), white)


def test_a_batch_shares_its_look_unless_every_image_has_its_own() -> None:
    x = noise(1, 1, *SIZE).expand(6, -1, -1, -1)
    scale = (0.2, 1.0)

    shared = draw_look(SIZE, generator=generator(), scale=scale).at(x)
    own = draw_look(SIZE, generator=generator(), scale=scale, images=6).at(x)

    assert all(torch.equal(image, shared[0]) for image in shared)
    assert len({image.sum().item() for image in own}) == 6


def test_the_gradient_of_a_look_is_its_transpose() -> None:
    look = draw_look(SIZE, generator=generator(), scale=(0.2, 0.8), roll=3)
    rows, columns = look.rows.double(), look.columns.double()
    x = noise(1, 1, *SIZE).double().requires_grad_()

    assert torch.autograd.gradcheck(type(look)(rows, columns).at, (x,))


# ---- CDA's curriculum


@pytest.mark.parametrize(
    ("mode", "step", "expected"),
    [
        ("cosine", 0, 1.0),
        ("cosine", 50, 0.08 + 0.92 / 2),
        ("cosine", 25, 0.08 + 0.92 * (1 + math.sqrt(0.5)) / 2),
        ("linear", 25, 0.08 + 0.92 * 0.75),
        ("linear", 99, 0.08 + 0.92 * 0.01),
        ("step", 99, 1.0),
        ("cosine", 100, 0.08),
        ("step", 100, 0.08),
        ("linear", 150, 0.08),
    ],
)
def test_b2_the_smallest_crop_follows_the_curriculum(mode: str, step: int, expected: float) -> None:
    # 200 iterations with the milestone at half of them
    found = smallest_crop(step, 200, end=0.08, mode=mode, until=0.5)

    assert found == pytest.approx(expected, abs=1e-12)


def test_b2_a_milestone_of_0_is_sre2l() -> None:
    steps = {smallest_crop(t, 10, end=0.08, mode="cosine", until=0.0) for t in range(10)}

    assert steps == {0.08}


# ---- distances


def test_norms_are_those_of_the_pieces() -> None:
    differences, lengths = noise(2, 9), [2, 4, 3]

    found = piece_norms(differences, torch.tensor(lengths))

    expected = torch.stack([p.norm(dim=1) for p in differences.split(lengths, 1)], 1)
    torch.testing.assert_close(found, expected)


def test_the_gradient_of_a_norm_of_0_is_0_and_of_others_the_direction() -> None:
    differences = torch.tensor([[0.0, 0.0, 3.0, 4.0]], requires_grad=True)

    norms = piece_norms(differences, torch.tensor([2, 2]))
    (gradient,) = torch.autograd.grad(norms.sum(), differences)

    assert norms.tolist() == [[0.0, 5.0]]
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0, 0.6, 0.8]]))


# ---- flatness


@pytest.mark.parametrize("direction", ["ema_teacher", "paper"])
def test_14_07_flatness_is_never_negative_and_flat_where_both_agree(direction: str) -> None:
    average = noise(5, 4)
    logits = average.clone().requires_grad_()

    same = flatness(logits, average, tau=4.0, direction=direction)
    (gradient,) = torch.autograd.grad(same, logits)
    others = [flatness(noise(5, 4, seed=s), average, tau=4.0, direction=direction) for s in (1, 2)]

    assert same.item() == pytest.approx(0, abs=1e-7)
    assert gradient.abs().max() < 1e-7
    assert all(other > 0.001 for other in others)


def test_the_directions_of_flatness_are_the_two_divergences() -> None:
    logits, average = torch.tensor([[0.0, 4.0]]), torch.tensor([[4.0, 0.0]])
    p = torch.softmax(torch.tensor([0.0, 2.0]), 0)  # at tau 2, of the logits
    q = torch.softmax(torch.tensor([1.0, 0.0]), 0)  # of other averages
    other = torch.tensor([[2.0, 0.0]])

    symmetric = flatness(logits, average, tau=4.0)
    ours = flatness(logits, other, tau=2.0, direction="ema_teacher")
    paper = flatness(logits, other, tau=2.0, direction="paper")

    assert symmetric.item() == pytest.approx(math.tanh(0.5), abs=1e-6)  # (2p - 1) ln(p / (1 - p))
    assert ours.item() == pytest.approx(float((q * (q / p).log()).sum()), abs=1e-6)
    assert paper.item() == pytest.approx(float((p * (p / q).log()).sum()), abs=1e-6)


def test_flatness_may_be_a_mean_over_classes_too() -> None:
    logits, average = noise(3, 5), noise(3, 5, seed=1)

    whole = flatness(logits, average, tau=4.0)
    mean = flatness(logits, average, tau=4.0, reduction="mean")

    torch.testing.assert_close(whole, 5 * mean)


def test_14_06_no_gradient_flows_to_the_average() -> None:
    logits, average = noise(3, 5).requires_grad_(), noise(3, 5, seed=1).requires_grad_()

    torch.autograd.backward(flatness(logits, average, tau=4.0, direction="paper"))

    assert logits.grad is not None
    assert average.grad is None


# ---- densification


def test_b3_densification_of_orthogonal_images_is_a_divergence_of_their_norms() -> None:
    x = torch.zeros(2, 1, 4, 4)
    x[0, 0, 0, 0], x[1, 0, 3, 3] = 1.0, 2.0  # Z Z^T = diag(1, 4)

    found = densification(x, torch.zeros(2, dtype=torch.int64), tau=4.0, side=4)

    goal = torch.softmax(torch.tensor([0.25, 1.0]), 0)
    own = torch.softmax(torch.tensor([1.0, 4.0]), 0)
    expected = float((goal * (goal / own).log()).sum())
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_b3_densification_adds_up_classes_and_single_images_add_nothing() -> None:
    x = 0.3 * noise(7, 1, 4, 4)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3])

    found = densification(x, labels, tau=4.0, side=4)

    alone = [densification(x[labels == c], labels[labels == c], tau=4.0, side=4) for c in range(4)]
    torch.testing.assert_close(found, torch.stack(alone).sum())
    assert alone[2].item() == alone[3].item() == 0
    assert found > 0


def test_b3_the_goal_of_densification_is_a_constant_and_pushes_the_spectrum_flat() -> None:
    x = torch.zeros(2, 1, 4, 4)
    x[0, 0, 0, 0], x[1, 0, 3, 3] = 1.0, 2.0
    x.requires_grad_()

    (gradient,) = torch.autograd.grad(
        densification(x, torch.zeros(2, dtype=torch.int64), tau=4.0, side=4), x
    )

    # dKL / de = softmax(e) - softmax(e / tau), and e = z^2
    own = torch.softmax(torch.tensor([1.0, 4.0]), 0)
    goal = torch.softmax(torch.tensor([0.25, 1.0]), 0)
    expected = (own - goal) * 2 * torch.tensor([1.0, 2.0])
    torch.testing.assert_close(gradient[[0, 1], 0, [0, 3], [0, 3]], expected)


def test_b3_views_are_pooled_before() -> None:
    x = 0.1 * noise(3, 1, 8, 8)
    labels = torch.zeros(3, dtype=torch.int64)

    found = densification(x, labels, tau=4.0, side=4)

    pooled = functional.avg_pool2d(x, 2)
    torch.testing.assert_close(found, densification(pooled, labels, tau=4.0, side=4))


# ---- priors


def test_total_variation_and_norm_by_hand() -> None:
    x = torch.zeros(2, 1, 2, 2)
    x[0, 0] = torch.tensor([[0.0, 3.0], [4.0, 0.0]])

    across, down, falling, rising = math.hypot(3, 4), math.hypot(4, 3), 0, 4 - 3
    assert total_variation(x).item() == pytest.approx(across + down + falling + rising)
    assert image_norm(x).item() == pytest.approx(5 / 2)
