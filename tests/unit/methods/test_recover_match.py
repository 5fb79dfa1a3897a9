"""Statistical matching: invariants 14.1 to 14.4 of the specification, the choices of `match`."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from distillhub.methods._recover_match import Matching, Running
from distillhub.models.classifier import Classifier
from distillhub.models.measuring import TapSpec
from distillhub.models.statistics import ObserverStatistics
from distillhub.ops.feature_moments import FeatureMoments
from distillhub.ops.pixels import normalize
from tests.fakes import tiny_data
from tests.unit.methods.recovering import (
    TAPS,
    distance_of,
    matching,
    observer,
    plain_distance,
    statistics_of,
)

DATA = tiny_data()
LABELS = [0, 0, 1, 1, 1, 2]


@pytest.fixture(scope="module")
def net() -> Classifier:
    return observer(DATA)


@pytest.fixture(scope="module")
def statistics(net: Classifier) -> ObserverStatistics:
    return statistics_of(DATA, net, batch=4)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def changed_classes(
    statistics: ObserverStatistics, change: str, factor: float = 2.0
) -> ObserverStatistics:
    """Other class tables: `double`, or `overall`: rows that all equal the overall targets."""

    def moments(layer: object, table: FeatureMoments) -> FeatureMoments:
        if change == "double":
            return FeatureMoments(*(None if t is None else factor * t for t in table))
        overall = layer.overall  # type: ignore[attr-defined]
        return FeatureMoments(
            *(None if t is None else o.expand_as(t) for t, o in zip(table, overall, strict=True))
        )

    layers = {
        path: layer._replace(
            classes=moments(layer, layer.classes), totals=moments(layer, layer.totals)
        )
        for path, layer in statistics.layers.items()
    }
    return replace(statistics, layers=layers)


def test_the_distance_is_that_of_the_published_hooks(
    net: Classifier, statistics: ObserverStatistics, x: Tensor
) -> None:
    found = distance_of(matching(statistics, LABELS), net, x)

    logits, expected = plain_distance(net, x, torch.tensor(LABELS), statistics)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert torch.equal(matching(statistics, LABELS).look(net, x).logits, logits)


def test_the_gradient_is_that_of_the_published_hooks(
    net: Classifier, statistics: ObserverStatistics, x: Tensor
) -> None:
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()

    torch.autograd.backward(distance_of(matching(statistics, LABELS), net, ours))
    torch.autograd.backward(plain_distance(net, theirs, torch.tensor(LABELS), statistics)[1])

    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)


# ---- 14.1


def test_14_01_with_alpha_1_class_tables_do_not_count(
    net: Classifier, statistics: ObserverStatistics, x: Tensor
) -> None:
    found = distance_of(matching(statistics, LABELS, alpha=1.0), net, x)
    other = changed_classes(statistics, "double")

    plain = plain_distance(net, x, torch.tensor(LABELS), statistics, alpha=1.0)[1]
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=0)
    assert torch.equal(found, distance_of(matching(other, LABELS, alpha=1.0), net, x))


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_14_01_with_one_class_both_category_matchings_agree(
    net: Classifier, statistics: ObserverStatistics, x: Tensor, alpha: float
) -> None:
    kinds = ("batch_mixture", "per_class")

    mixture, own = (
        distance_of(matching(statistics, [1] * 6, alpha=alpha, category_matching=kind), net, x)
        for kind in kinds
    )

    torch.testing.assert_close(mixture, own, rtol=1e-6, atol=0)


def test_per_class_matching_is_the_mean_over_the_classes_of_the_batch(
    net: Classifier, statistics: ObserverStatistics, x: Tensor
) -> None:
    found = distance_of(
        matching(statistics, LABELS, alpha=0.0, category_matching="per_class"), net, x
    )

    labels = torch.tensor(LABELS)
    parts = [
        (labels == c).float().mean()
        * plain_distance(net, x[labels == c], labels[labels == c], statistics, alpha=0.0)[1]
        for c in range(3)
    ]
    torch.testing.assert_close(found, torch.stack(parts).sum(), rtol=1e-5, atol=0)


# ---- 14.2


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_14_02_classes_like_the_whole_make_alpha_of_no_account(
    net: Classifier, statistics: ObserverStatistics, x: Tensor, alpha: float
) -> None:
    same = changed_classes(statistics, "overall")

    found = distance_of(matching(same, LABELS, alpha=alpha), net, x)

    half = distance_of(matching(same, LABELS, alpha=0.5), net, x)
    torch.testing.assert_close(found, half, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["batch_mixture", "per_class"])
def test_14_02_the_order_of_images_in_a_batch_does_not_matter(
    net: Classifier, statistics: ObserverStatistics, x: Tensor, kind: str
) -> None:
    order = [4, 0, 5, 2, 1, 3]

    found = distance_of(matching(statistics, LABELS, category_matching=kind), net, x)
    turned = distance_of(
        matching(statistics, [LABELS[i] for i in order], category_matching=kind), net, x[order]
    )

    torch.testing.assert_close(found, turned, rtol=1e-6, atol=0)


# ---- 14.3


def test_14_03_without_momentum_statistics_are_those_of_the_step() -> None:
    running = Running(0.0)
    moments = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))

    running.follow(moments + 1)
    found = running.follow(moments)

    assert found is moments


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_14_03_the_value_is_the_running_one_and_the_gradient_that_of_the_step(
    momentum: float,
) -> None:
    running = Running(momentum)
    first, second = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -2.0]], requires_grad=True)

    running.follow(first)
    found = running.follow(second)
    torch.autograd.backward(found.sum())

    expected = momentum * first + (1 - momentum) * second.detach()
    torch.testing.assert_close(found.detach(), expected)
    torch.testing.assert_close(second.grad, torch.ones(1, 2))


def test_14_03_running_statistics_begin_with_the_first_observation_or_at_0() -> None:
    moments = torch.tensor([[5.0, 10.0]])

    ours, leaking = (Running(0.8, from_zero=zero).follow(moments) for zero in (False, True))

    torch.testing.assert_close(ours, moments)
    torch.testing.assert_close(leaking, 0.2 * moments)


def test_statistics_that_were_left_out_keep_their_running_value() -> None:
    running = Running(0.5)

    running.follow(torch.tensor([[1.0, 0.0]]), torch.tensor([True, False]))
    begun = running.follow(torch.tensor([[3.0, 7.0]]))
    running.follow(torch.tensor([[0.0, 9.0]]), torch.tensor([False, True]))
    found = running.follow(torch.tensor([[4.0, 2.0]]))

    assert begun.tolist() == [[2.0, 7.0]]  # the second begins only now
    assert found.tolist() == [[3.0, 5.0]]  # the first was left out in between


# ---- 14.4


def whole(taps: TapSpec, net: Classifier) -> tuple[ObserverStatistics, Tensor, list[int]]:
    """All real images as one batch, and statistics of just that batch."""
    found = statistics_of(DATA, net, taps, augment="none", batch=len(DATA))
    x = normalize(DATA.images(range(len(DATA))), DATA.mean, DATA.std)
    return found, x, DATA.labels.tolist()


def test_14_04_the_real_images_themselves_are_at_distance_0_for_convolutions(
    net: Classifier,
) -> None:
    statistics, x, labels = whole(TapSpec(bn=False, patch_side=2), net)

    found = distance_of(matching(statistics, labels, alpha=1.0), net, x)

    noise = distance_of(matching(statistics, labels, alpha=1.0), net, torch.zeros_like(x))
    assert found < 1e-4 * noise


def test_14_04_a_class_is_at_distance_0_of_its_total_statistics(net: Classifier) -> None:
    statistics, x, labels = whole(TAPS, net)
    of_class = x[torch.tensor(labels) == 1]
    settings = {"alpha": 0.0, "class_variance": "total"}

    found = distance_of(matching(statistics, [1] * 6, **settings), net, of_class)

    within = distance_of(matching(statistics, [1] * 6, alpha=0.0), net, of_class)
    assert found < 1e-4 * within  # variances inside images lack what lies between them


def test_14_04_scaling_a_target_shifts_the_distance_by_the_exact_norm(net: Classifier) -> None:
    statistics, x, labels = whole(TapSpec(bn=False, patch_side=2), net)
    path, layer = list(statistics.layers.items())[1]
    means = layer.overall.mean
    layers = dict(statistics.layers)
    layers[path] = layer._replace(overall=layer.overall._replace(mean=1.5 * means))

    found = distance_of(matching(replace(statistics, layers=layers), labels, alpha=1.0), net, x)

    before = distance_of(matching(statistics, labels, alpha=1.0), net, x)
    torch.testing.assert_close(found - before, 0.5 * means.norm(), rtol=1e-3, atol=1e-4)


# ---- choices


def pieces(match: Matching, net: Classifier, x: Tensor) -> list[list[Tensor]]:
    """Distances of every layer by hand."""
    moments = match.look(net, x).moments[0]
    found, start = [], 0
    for widths in match._widths.values():
        layer = []
        for width in widths:
            difference = (moments - match._targets[0])[start : start + width]
            layer.append(difference)
            start += width
        found.append(layer)
    return found


def test_layer_norms_are_a_sum_a_mean_and_a_mean_of_root_mean_squares(
    net: Classifier, statistics: ObserverStatistics, x: Tensor
) -> None:
    kinds = ("sum", "mean", "per_channel")
    settings = {"alpha": 1.0, "first_multiplier": 3.0}

    total, mean, rms = (
        distance_of(matching(statistics, LABELS, layer_norm=kind, **settings), net, x)
        for kind in kinds
    )

    layers = pieces(matching(statistics, LABELS, **settings), net, x)
    sums = [sum(d.norm() for d in layer) for layer in layers]
    squares = [sum(d.square().mean().sqrt() for d in layer) for layer in layers]
    weights = [3.0] + [1.0] * (len(layers) - 1)
    assert len(layers) == 4
    for found, terms, count in ((total, sums, 1), (mean, sums, 4), (rms, squares, 4)):
        expected = sum(w * s for w, s in zip(weights, terms, strict=True)) / count
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_layers_that_are_left_out_are_not_measured_and_add_nothing(
    net: Classifier, statistics: ObserverStatistics, x: Tensor
) -> None:
    match = matching(statistics, LABELS, alpha=1.0, first_multiplier=1.0)
    (first, second) = match.convs

    seen = match.look(net, x, skip=[second])
    found = match.distance(seen.moments, skip=[second])

    layers = dict(zip(match._widths, pieces(match, net, x), strict=True))
    expected = sum(d.norm() for path, ds in layers.items() if path != second for d in ds)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    kept = match.kept([second])
    assert kept is not None
    assert seen.moments[:, ~kept].abs().max() == 0
    assert first in layers


def test_swapped_patch_statistics_are_those_of_classes_alone(
    net: Classifier, statistics: ObserverStatistics, x: Tensor
) -> None:
    exchanged = {
        path: layer._replace(
            classes=layer.classes._replace(
                patch_mean=layer.classes.patch_var, patch_var=layer.classes.patch_mean
            )
        )
        for path, layer in statistics.layers.items()
    }

    found = distance_of(matching(statistics, LABELS, swapped=True), net, x)
    globally = distance_of(matching(statistics, LABELS, swapped=True, alpha=1.0), net, x)

    expected = distance_of(matching(replace(statistics, layers=exchanged), LABELS), net, x)
    correct = distance_of(matching(statistics, LABELS), net, x)
    assert torch.equal(found, expected)
    assert not torch.equal(found, correct)
    assert torch.equal(globally, distance_of(matching(statistics, LABELS, alpha=1.0), net, x))


def test_taps_say_which_layers_are_matched(net: Classifier, x: Tensor) -> None:
    kinds = {
        "bn": TapSpec(conv=False, patch=False),
        "conv": TapSpec(bn=False, patch=False),
        "patch": TapSpec(bn=False, patch_side=2),
    }

    found = {
        name: len(matching(statistics_of(DATA, net, taps), LABELS).look(net, x).moments[0])
        for name, taps in kinds.items()
    }

    # BN: 8 channels twice; convolutions: 1 and 8; patches of 8 x 8 and 6 x 6 maps: 16 and 9
    assert found == {"bn": 2 * 16, "conv": 2 * 9, "patch": 2 * 9 + 2 * 25}
