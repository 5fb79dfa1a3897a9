"""NOpt: its losses, its pivots and its optimisation."""

import math

import pytest
import torch

from distillhub.ops import nopt
from distillhub.ops.nopt import NoiseSearch, Target, Weights
from distillhub.ops.projector import Projector

WIDTHS = (32, 64, 64, 128)
CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed))


def projector(shape: tuple[int, int, int], seed: int = 1) -> Projector:
    return Projector.draw(shape, WIDTHS, 16, [generator(seed)])


def real_target(net: Projector, shape: tuple[int, int, int], n: int, seed: int = 2) -> Target:
    """Pivots of latents that are 0.6 as wide as noise."""
    return nopt.make_pivots(net.pooled(0.6 * normal(1, 12 * n, *shape, seed=seed))[0], n)


def joined(targets: list[Target]) -> Target:
    return Target(*(torch.cat(parts) for parts in zip(*targets, strict=True)))


def search(
    net: Projector, mean: torch.Tensor, target: Target, *, sigma: float = 0.35, **settings
) -> NoiseSearch:
    """An optimisation at its start."""
    weight = settings.pop("weight", 5e-4 * 2048 / WIDTHS[-1])
    found = NoiseSearch(
        lambda x, eps, goal: nopt.da_loss(net, weight, x, eps, goal),
        mean.shape,
        **({"lr": 0.1, "momentum": 0.9, "device": CPU} | settings),
    )
    found.begin(mean, torch.full_like(mean, sigma), normal(*mean.shape, seed=7), 0 * mean, target)
    return found


def test_absn2_is_the_sum_of_both_and_flat_at_zero():
    x = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)

    found = nopt.absn2(x)

    assert found.tolist() == [6, 0, 12]
    assert torch.autograd.grad(found.sum(), x)[0].tolist() == [-5, 0, 7]


def test_real_loss_is_the_distance_from_the_sphere():
    eps = torch.zeros(1, 2, 1, 2, 2)
    eps[0, 0] = 2.0  # norm 4, radius 2: distance 2 -> 2 + 4
    eps[0, 1] = 1.0  # on the sphere

    assert nopt.real_loss(eps).tolist() == [6]


def test_dsco_check_05_noise_is_pulled_to_the_target_and_stays_normal():
    shape, n = (4, 32, 32), 6
    net = projector(shape)
    target = real_target(net, shape, n)
    mean = 0.5 * normal(1, n, *shape, seed=3)
    run = search(net, mean, target)

    def aligned() -> float:
        samples = mean + 0.35 * run.eps
        return nopt.align_loss(net.pooled(samples), target).item()

    before = aligned()
    run.run(200)

    assert aligned() < 0.8 * before
    norms = run.eps.flatten(2).norm(dim=2)
    assert (norms - 64).abs().max() < 0.5
    assert abs(run.eps.mean().item()) < 0.05
    assert 0.97 < run.eps.std().item() < 1.03


def test_dsco_check_06_pivots_are_monotone_and_normalised():
    features = normal(5, 24) * 3 + 1

    target = nopt.make_pivots(features.clone(), 4)

    assert target.pivots.shape == (1, 5, 4)
    assert (target.pivots.diff(dim=2) >= 0).all()
    assert torch.allclose(target.pivots.mean(dim=2), torch.zeros(1, 5), atol=1e-6)
    assert (target.pivots.std(dim=2, correction=0) <= 1).all()
    assert torch.allclose(target.mean[0], features.mean(dim=1))
    assert torch.allclose(target.std[0], features.std(dim=1, correction=0))


def test_dsco_check_06_pivots_by_hand():
    # 1 2 | 3 4 | 5 6 -> (1.5, 3.5, 5.5), less the mean 3.5, over sqrt(35 / 12)
    target = nopt.make_pivots(torch.tensor([[6.0, 1, 4, 3, 5, 2]]), 3)

    expected = torch.tensor([-2.0, 0, 2]) / math.sqrt(35 / 12)
    assert torch.allclose(target.pivots[0, 0], expected)


def test_dsco_check_06_the_order_of_real_samples_does_not_matter():
    features = normal(5, 24)
    order = torch.randperm(24, generator=generator())

    one, other = (nopt.make_pivots(f.clone(), 6) for f in (features, features[:, order]))

    assert torch.allclose(one.pivots, other.pivots, atol=1e-6)


def test_dsco_check_06_shares_must_be_equal():
    with pytest.raises(ValueError, match="24 features cannot be cut into 5"):
        nopt.make_pivots(normal(5, 24), 5)


def test_dsco_check_07_permuted_samples_give_permuted_noise():
    shape, n = (1, 8, 8), 5
    net = projector(shape)
    target = real_target(net, shape, n)
    order = torch.tensor([3, 0, 4, 1, 2])
    mean = normal(1, n, *shape, seed=3)
    straight, turned = search(net, mean, target), search(net, mean[:, order], target)
    turned.eps.copy_(straight.eps[:, order])

    for run in (straight, turned):
        run.run(1)
    assert torch.allclose(straight.loss, turned.loss, rtol=1e-5)
    for run in (straight, turned):
        run.run(4)

    assert torch.allclose(turned.eps, straight.eps[:, order], atol=1e-4)


def test_dsco_check_08_samples_like_the_target_have_no_loss_and_no_gradient():
    features = normal(3, 6).requires_grad_()
    target = nopt.make_pivots(features.detach().clone(), 6)

    loss = nopt.align_loss(features[None], target)
    (gradient,) = torch.autograd.grad(loss.sum(), features)

    assert loss.item() < 1e-4
    assert (
        torch.autograd.grad(
            nopt.align_loss(
                exact := features.detach()[None].requires_grad_(), _of_itself(exact)
            ).sum(),
            exact,
        )[0]
        .abs()
        .max()
        == 0
    )
    assert gradient.shape == features.shape


def _of_itself(features: torch.Tensor) -> Target:
    """Pivots that are, bit for bit, the sorted normalised features."""
    std, mean = torch.std_mean(features.detach(), dim=2, correction=0)
    values = (features.detach() - mean[..., None]) / std[..., None]
    return Target(mean, std, values.sort(dim=2).values)


def test_align_loss_by_hand():
    # one channel, two samples: sorted (0, 2) against (0.5, 1) -> 0.5 + 0.25 + 1 + 1, times N
    target = Target(torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[[0.5, 1.0]]]))

    assert nopt.align_loss(torch.tensor([[[2.0, 0.0]]]), target).tolist() == [5.5]


def test_dsco_check_09_only_the_noise_gets_a_gradient():
    shape, n = (1, 8, 8), 3
    net = projector(shape)
    target = real_target(net, shape, n)
    mean = normal(1, n, *shape, seed=3)
    run = search(net, mean, target)
    others = [*net.weights, *net.biases, net.folded, *target, mean]
    before = [part.clone() for part in others]

    run.run(5)

    for part, kept in zip(others, before, strict=True):
        assert not part.requires_grad
        assert part.grad is None
        assert torch.equal(part, kept)
    assert not run.eps.requires_grad
    assert run.eps.grad_fn is None
    assert run.velocity.grad_fn is None
    assert run.loss.grad_fn is None


def test_dsco_check_10_classes_together_are_as_one_by_one():
    shape, n = (1, 8, 8), 4
    nets = [projector(shape, seed) for seed in (1, 2, 3)]
    targets = [real_target(net, shape, n, seed) for seed, net in enumerate(nets)]
    mean = normal(3, n, *shape, seed=3)
    together = search(Projector.join(nets), mean, joined(targets))
    alone = [search(net, mean[k : k + 1], targets[k]) for k, net in enumerate(nets)]
    for k, run in enumerate(alone):
        run.eps.copy_(together.eps[k : k + 1])

    for run in (together, *alone):
        run.run(1)
    losses = torch.cat([run.loss for run in alone])
    assert torch.allclose(together.loss, losses, rtol=1e-6)
    for run in (together, *alone):
        run.run(4)

    assert torch.allclose(together.eps, torch.cat([run.eps for run in alone]), rtol=1e-4, atol=1e-5)


def test_the_update_is_that_of_torch_sgd():
    shape, n = (1, 8, 8), 3
    net = projector(shape)
    target = real_target(net, shape, n)
    mean = normal(1, n, *shape, seed=3)
    run = search(net, mean, target, weight=1e-2)
    eps = run.eps.clone().requires_grad_()
    optimizer = torch.optim.SGD([eps], lr=0.1, momentum=0.9)
    for _ in range(6):
        optimizer.zero_grad()
        loss = nopt.da_loss(net, 1e-2, mean + 0.35 * eps, eps, target)
        torch.autograd.backward(loss.sum())
        optimizer.step()

    run.run(6)

    assert torch.allclose(run.eps, eps.detach(), atol=1e-6)


def test_an_optimisation_in_two_parts_is_that_in_one():
    shape, n = (1, 8, 8), 3
    net = projector(shape)
    target = real_target(net, shape, n)
    mean = normal(1, n, *shape, seed=3)
    whole, first, second = (search(net, mean, target) for _ in range(3))
    whole.run(7)
    first.run(3)

    second.begin(mean, torch.full_like(mean, 0.35), first.eps, first.velocity, target)
    second.run(4)

    assert torch.equal(second.eps, whole.eps)
    assert torch.equal(second.velocity, whole.velocity)


def test_buffers_serve_the_next_step():
    shape, n = (1, 8, 8), 3
    net = projector(shape)
    old, new = (real_target(net, shape, n, seed) for seed in (2, 5))
    mean, later = normal(1, n, *shape, seed=3), normal(1, n, *shape, seed=4)
    used, fresh = search(net, mean, old), search(net, later, new)
    used.run(2)

    start = normal(*mean.shape, seed=7)
    used.begin(later, torch.full_like(mean, 0.35), start, 0 * start, new)
    for run in (used, fresh):
        run.run(3)

    assert torch.equal(used.eps, fresh.eps)


def maps(*, n: int = 3, size: int = 2) -> torch.Tensor:
    return normal(1, n, 4, size, size)


def test_dsco_check_13_a_template_is_like_itself():
    features = maps(n=8) * 3 + 1
    std, mean = torch.std_mean(features, dim=(1, 3, 4), correction=0)

    found = nopt.normalize_map(features, Target(mean, std))

    assert torch.allclose(found.mean(dim=(1, 3, 4)), torch.zeros(1, 4), atol=1e-6)
    assert torch.allclose(found.std(dim=(1, 3, 4), correction=0), torch.ones(1, 4), atol=1e-6)
    assert nopt.stats_loss(found, 16).item() < 1e-3


def test_dsco_check_13_no_sample_is_its_own_neighbour():
    # three samples of one channel and two positions: 0, 90 and 180 degrees
    features = torch.tensor([[2.0, 0], [0, 3], [-1, 0]]).view(1, 3, 1, 1, 2)

    # nearest: the second for both others (0), either for the second (0); itself would give 3
    assert nopt.overlap_loss(features).item() == pytest.approx(0, abs=1e-6)


def test_dsco_check_13_a_lone_sample_gives_a_finite_loss_and_gradient():
    features = maps(n=1, size=1).requires_grad_()

    loss = nopt.overlap_loss(features) + nopt.stats_loss(features, 1.0)
    (gradient,) = torch.autograd.grad(loss.sum(), features)

    assert loss.isfinite().all()
    assert gradient.isfinite().all()


def test_stats_loss_is_scaled_by_the_positions_in_the_code_and_not_in_the_paper():
    shape, n = (1, 32, 32), 3
    net = projector(shape)
    x, eps = normal(1, n, *shape, seed=3), normal(1, n, *shape, seed=4)
    target = Target(torch.zeros(1, WIDTHS[-1]), torch.ones(1, WIDTHS[-1]))

    def loss(scale: float | None) -> float:
        found = nopt.df_loss(net, Weights(0.0, 1.0, scale), x, eps, target)
        return (found - nopt.real_loss(eps)).item()

    assert loss(None) == pytest.approx(16 * loss(1.0), rel=1e-4)


def test_data_free_classes_together_are_as_one_by_one():
    shape, n = (1, 16, 16), 4
    net = projector(shape)
    x, eps = normal(3, n, *shape, seed=3), normal(3, n, *shape, seed=4)
    target = Target(normal(3, WIDTHS[-1]), normal(3, WIDTHS[-1]).abs() + 0.5)
    weights = Weights(10.0, 1e-3, None)

    together = nopt.df_loss(net, weights, x, eps, target)

    alone = [
        nopt.df_loss(
            net,
            weights,
            x[k : k + 1],
            eps[k : k + 1],
            Target(target.mean[k : k + 1], target.std[k : k + 1]),
        )
        for k in range(3)
    ]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-5)


@pytest.mark.gpu
def test_a_captured_iteration_is_that_without_a_graph():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device, shape, n = torch.device("cuda"), (1, 8, 8), 4
    net = Projector.draw(shape, WIDTHS, 16, [generator(1)], device)
    target = real_target(projector(shape), shape, n)
    goal = Target(*(part.to(device) for part in target))
    mean = normal(1, n, *shape, seed=3).to(device)
    eager, graphed = (search(net, mean, goal, device=device, graph=g) for g in (False, True))

    for run in (eager, graphed):
        run.run(5)

    assert torch.allclose(eager.eps, graphed.eps, atol=1e-4)
