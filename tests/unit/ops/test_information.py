"""Information scores against closed forms; the numbered checks of IGDS that are pure maths."""

import math

import pytest
import torch
from torch import Tensor

from distillhub.ops.information import (
    calibrated_temperature,
    capped,
    conditional_information,
    context_weight,
    divergence_score,
    log_mean,
    normalized_gradient,
    norms,
    over_views,
    prototype_bound,
    prototype_score,
    spread_score,
    whitening,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def log_p(*shape: int, seed: int = 0, sharp: float = 2.0) -> Tensor:
    return (sharp * normal(*shape, seed=seed)).log_softmax(-1)


def entropy(log_q: Tensor) -> Tensor:
    return -(log_q.exp() * log_q).sum(-1)


def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def test_igds_check_03_a_single_sample_has_no_context_and_no_gradient() -> None:
    logits = normal(4, 1, 6).requires_grad_()
    scores = {
        "self": divergence_score(logits.log_softmax(-1)),
        "logdet": spread_score(logits, noise=0.5),
    }

    for score in scores.values():
        (gradient,) = torch.autograd.grad(score.sum(), logits)
        assert torch.equal(score, torch.zeros(4, 1, dtype=torch.float64))
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_igds_check_04_prototype_scores_and_their_bound_have_their_upper_limits() -> None:
    labels = torch.arange(40) % 5
    scores = prototype_score(normal(40, 5), labels)

    assert scores.max() <= 0
    assert prototype_bound(scores, 5) <= math.log(5)
    # Certainty reaches the limit.
    sure = 100 * torch.nn.functional.one_hot(labels, 5).double()
    assert prototype_bound(prototype_score(sure, labels), 5) == pytest.approx(math.log(5))


def test_igds_check_04_a_uniform_classifier_shows_no_information() -> None:
    labels = torch.arange(40) % 5

    scores = prototype_score(torch.full((40, 5), 3.0), labels)

    assert prototype_bound(scores, 5) == pytest.approx(0, abs=1e-6)


def test_prototype_score_is_the_logarithm_of_the_softmax() -> None:
    logits = torch.tensor([[2.0, 0.0]]).double()

    score = prototype_score(logits, torch.tensor([0]), temperature=2.0)

    assert score.item() == pytest.approx(-math.log(1 + math.exp(-1)))


def test_igds_check_05_divergence_is_positive_and_zero_for_equal_samples() -> None:
    apart = divergence_score(log_p(3, 7, 5))
    equal = divergence_score(log_p(3, 1, 5).expand(3, 7, 5))

    assert apart.min() > 0
    torch.testing.assert_close(equal, torch.zeros_like(equal), rtol=0, atol=1e-12)


def test_igds_check_05_other_centroids_cost_their_divergence_from_the_own_one() -> None:
    samples, other = log_p(3, 7, 5), log_p(3, 5, seed=1)

    own = divergence_score(samples).mean(1)
    foreign = divergence_score(samples, other).mean(1)

    assert (foreign >= own).all()
    torch.testing.assert_close(foreign - own, kl(log_mean(samples), other))


def test_igds_check_06_information_is_bounded_by_the_entropy_of_the_mean() -> None:
    for sharp in (0.1, 2.0, 50.0):
        samples = log_p(1, 200, 5, sharp=sharp)
        found = divergence_score(samples).mean()
        most = entropy(log_mean(samples[0]))
        assert found <= most + 1e-12
        assert most <= math.log(5) + 1e-12
    # One-hot samples, equally often each: both limits are reached.
    one_hot = (1000 * torch.eye(5).double()).log_softmax(1).repeat(4, 1).unsqueeze(0)
    assert divergence_score(one_hot).mean().item() == pytest.approx(math.log(5))


def test_igds_check_07_spread_does_not_depend_on_the_order() -> None:
    features = normal(2, 6, 4)
    order = torch.tensor([3, 1, 5, 0, 2, 4])

    torch.testing.assert_close(
        spread_score(features[:, order], noise=0.5), spread_score(features, noise=0.5)
    )


def test_igds_check_07_spread_grows_when_a_duplicate_becomes_a_sample_of_its_own() -> None:
    # Equally far from one another: a sample nearer to the mean than the duplicate might shrink it.
    features = torch.eye(6).double().unsqueeze(0)
    doubled = features.clone()
    doubled[0, 5] = doubled[0, 4]

    assert spread_score(features, noise=0.5).sum() > spread_score(doubled, noise=0.5).sum()


def test_spread_is_the_information_of_a_normal_feature() -> None:
    features = normal(1, 50, 3)
    covariance = torch.cov(features[0].T, correction=0)

    found = spread_score(features, noise=0.5).sum()

    expected = 0.5 * torch.logdet(torch.eye(3).double() + covariance / 0.25)
    torch.testing.assert_close(found, expected)


def test_conditional_information_averages_the_classes_by_their_size() -> None:
    samples, labels = log_p(9, 4), torch.tensor([0, 1, 0, 0, 1, 2, 0, 1, 0])

    found = conditional_information(samples, labels)

    by_hand = sum(
        kl(samples[labels == label], log_mean(samples[labels == label])).sum() for label in range(3)
    )
    torch.testing.assert_close(found, by_hand / 9)


def test_whitened_features_have_unit_covariance_within_classes() -> None:
    labels = torch.arange(600) % 3
    mixed = normal(600, 4) @ normal(4, 4, seed=1) + 10 * normal(3, 4, seed=2)[labels]

    white = mixed @ whitening(mixed, labels)

    for label in range(3):
        white[labels == label] -= white[labels == label].mean(0)
    torch.testing.assert_close(white.T @ white / 600, torch.eye(4).double())


def test_directions_without_variance_are_not_blown_up() -> None:
    flat = torch.cat([normal(50, 2), torch.zeros(50, 1).double()], 1)

    white = whitening(flat, torch.zeros(50, dtype=torch.int64))
    alone = whitening(flat[:1], torch.zeros(1, dtype=torch.int64))

    assert white.abs().max() < 200  # 1 / sqrt(1e-4) times the deviation of about 1
    torch.testing.assert_close(alone, torch.eye(3).double())


def test_the_calibrated_temperature_undoes_a_scale() -> None:
    logits = 1.5 * normal(4000, 4)
    labels = torch.multinomial(
        logits.softmax(1), 1, generator=torch.Generator().manual_seed(0)
    ).squeeze(1)

    found = calibrated_temperature(3 * logits, labels)

    assert found == pytest.approx(3 * calibrated_temperature(logits, labels), rel=1e-4)
    assert found == pytest.approx(3, rel=0.1)  # the labels are drawn from the logits


def test_igds_check_11_a_table_replaces_the_rule() -> None:
    rule = [context_weight(ipc, beta_max=0.3) for ipc in (1, 10, 20, 50, 100)]

    assert rule == pytest.approx([0, 0.15, 0.195, 0.255, 0.3], abs=1e-3)
    assert context_weight(10, beta_max=0.3, table={10: 7.0}) == 7.0
    with pytest.raises(KeyError):
        context_weight(20, beta_max=0.3, table={10: 7.0})


def test_scores_are_averaged_over_members_and_mirror_images() -> None:
    x = torch.tensor([[[[1.0, 2.0, 4.0]]]])

    def first(view: Tensor) -> Tensor:
        return view[..., 0].flatten()

    def last(view: Tensor) -> Tensor:
        return 10 * view[..., 0].flatten()

    assert over_views([first, last], x, flip=False).item() == 5.5  # 1 and 10
    assert over_views([first, last], x, flip=True).item() == 13.75  # and 4 and 40


def test_a_normalized_gradient_has_the_norm_of_the_noise() -> None:
    gradient, eps = 1e3 * normal(5, 1, 2, 2), normal(5, 1, 2, 2, seed=1)

    found = normalized_gradient(gradient, eps)

    torch.testing.assert_close(norms(found), norms(eps))
    torch.testing.assert_close(found / norms(found), gradient / norms(gradient))


def test_a_shift_is_shortened_only_where_it_is_too_long() -> None:
    shift = torch.tensor([[3.0, 4.0], [0.3, 0.4]]).view(2, 1, 1, 2)

    found = capped(shift, torch.ones(2, 1, 1, 1))

    torch.testing.assert_close(found.view(2, 2), torch.tensor([[0.6, 0.8], [0.3, 0.4]]))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: prototype_score(torch.zeros(2, 3), torch.zeros(3).long()), r"\(2, 3\) and"),
        (lambda: prototype_score(torch.zeros(1, 3), torch.zeros(1).long(), temperature=0), "not p"),
        (lambda: prototype_bound(torch.zeros(0), 3), "no images"),
        (lambda: spread_score(torch.zeros(1, 2, 3), noise=0.0), "not positive"),
    ],
)
def test_impossible_values_are_refused(wrong, told) -> None:
    with pytest.raises(ValueError, match=told):
        wrong()
