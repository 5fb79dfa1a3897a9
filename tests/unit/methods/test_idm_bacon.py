"""IDM and BACON against the published loop written out, and the invariants of their pages."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

from distillhub.data.real import RealData
from distillhub.errors import DivergedError
from distillhub.methods import _distribution, _matching, bacon
from distillhub.methods._distribution import QueueMatching
from distillhub.methods._matching import arithmetic, drawn
from distillhub.methods.bacon import BACON
from distillhub.methods.idm import IDM
from distillhub.models.classifier import Classifier
from distillhub.models.queue import Meter, Queue, QueueSpec, RealPixels
from distillhub.ops.augment import apply_dsa, draw_dsa
from distillhub.ops.bayes import Moments, bayesian_loss, moments
from distillhub.ops.formation import expand, pack, split
from distillhub.ops.progress import Progress
from distillhub.ops.selection import distinct
from distillhub.units import Target
from tests.fakes import TinyBench, made_by, target_of, tiny_data, units_of

QUEUE = {"arch": "convnet2-w4", "batch": 6, "train_steps": 1, "fetch": 4}
SETTINGS: dict[str, object] = {
    "iterations": 5,
    "batch_real": 4,
    "queue": QUEUE,
    "lr_img": 0.05,
    "dsa": "color_crop_cutout_scale_rotate",
}
SIDE = 8


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    """The queue is the same in all tests of this module."""
    return tmp_path_factory.mktemp("resources")


@pytest.fixture
def bench(resources) -> TinyBench:
    return TinyBench(tiny_data(classes=3, per_class=8), folder=resources)


def idm(**settings: object) -> IDM:
    return IDM.model_validate(SETTINGS | settings)


def bayes(**settings: object) -> BACON:
    return BACON.model_validate(SETTINGS | settings)


def synthesize(
    method: QueueMatching, bench: TinyBench, reports: list[Progress] | None = None, ipc: int = 2
) -> Tensor:
    return made_by(method, units_of(method, target_of(bench.data, ipc)), bench, reports=reports)


Distance = Callable[[Tensor, Tensor], Tensor]
"""Features of the real and of the synthetic images of a class, [B, D] and [n, D]: the loss."""


def squared(real: Tensor, synthetic: Tensor) -> Tensor:
    return (synthetic.mean(dim=0) - real.mean(dim=0)).square().sum()


def bayesian(real: Tensor, synthetic: Tensor) -> Tensor:
    """The loss of the authors' code; its terms have tests of their own."""
    return bayesian_loss(moments(real[None]), synthetic[None])[0]


def published_loop(
    bench: TinyBench, start: Tensor, distance: Distance, *, steps: int, ce_weight: float
) -> Tensor:
    """A class at a time with one optimizer, and the same draws; [0, 1] in, normalised out.

    Returns the images as they are just before each class would be visited again.
    """
    data = bench.data
    mean, std = data.mean[0], data.std[0]
    x = ((start - mean) / std).view(3, -1, 1, SIDE, SIDE).clone().requires_grad_()
    optimizer = torch.optim.SGD([x], lr=0.05, momentum=0.5)
    rows = torch.arange(len(data))
    pixels = RealPixels(data.pixels(rows), data.labels, 3, data.mean, data.std)
    queue = Queue.begin(QueueSpec.model_validate(QUEUE), pixels)
    read = torch.empty(3, *x.shape[1:])
    for iteration, member in queue.iterations(0, steps + 1):
        weights = [p.detach().clone() for p in member.net.parameters()]
        for label in range(3):
            read[label] = x[label].detach()
            if iteration == steps:  # no more gradients, but momentum goes on
                x.grad = torch.zeros_like(x)
                optimizer.step()
                continue
            own = data.rows_of(label)
            order = distinct(len(own), 4, bench.generator("real", iteration, label))
            real = (data.images(own[order]) - mean) / std
            draw = draw_dsa(
                str(SETTINGS["dsa"]), (SIDE, SIDE), bench.generator("dsa", iteration, label)
            )
            target = member.net.features_normalized(apply_dsa(real, draw)).detach()
            seen = apply_dsa(expand(x[label], 2), draw)
            found = member.net.features_normalized(seen)
            nats = functional.cross_entropy(
                member.net.normalized(seen), torch.full((len(seen),), label)
            )
            percent = member.meter.percent_since(Meter())
            loss = distance(target, found) + ce_weight * percent * nats
            optimizer.zero_grad(set_to_none=False)
            (x.grad,) = torch.autograd.grad(loss, x)
            optimizer.step()
        assert all(map(torch.equal, weights, member.net.parameters()))
    return read


def follows_the_sequential_loop(
    method: QueueMatching, distance: Distance, bench: TinyBench
) -> bool:
    """Whether the images are those of the published loop after five iterations."""
    start = synthesize(method.model_copy(update={"iterations": 1, "lr_img": 1e-20}), bench)
    kept: list[Tensor] = []
    run = method.synthesize(units_of(method, target_of(bench.data, 2)), bench)
    for report in iter(lambda: next(run, None), None):
        assert report.snapshot is not None
        kept.append(report.snapshot()["images"])  # type: ignore[arg-type]
    expected = published_loop(bench, start, distance, steps=5, ce_weight=method.ce_weight)

    began = ((start - 0.4) / 0.25).view_as(expected)
    assert (expected - began).abs().max() > 0.05  # they moved
    return torch.allclose(kept[-1], expected, atol=1e-4)


@pytest.mark.parametrize("ce_weight", [0.0, 0.02])
def test_idm_check_07_one_step_for_all_classes_is_the_sequential_loop(
    bench: TinyBench, ce_weight: float
) -> None:
    assert follows_the_sequential_loop(idm(ce_weight=ce_weight, together=3), squared, bench)


@pytest.mark.parametrize("ce_weight", [0.0, 0.02])
def test_bacon_check_08_one_step_for_all_classes_is_the_sequential_loop(
    bench: TinyBench, ce_weight: float
) -> None:
    assert follows_the_sequential_loop(bayes(ce_weight=ce_weight, together=3), bayesian, bench)


def cross_entropy_terms(method: QueueMatching, bench: TinyBench) -> tuple[float, float, float]:
    """Loss at equal features with a network of 0 %, of 60 %, and its nats."""
    net = bench.network("teacher")
    x = bench.data.images(torch.arange(2))
    seen = expand(x, 2)
    real = moments(net.features_normalized(seen)[None].detach())
    never, half = (
        method._match(net, x[None], [1], real, [None], percent)[0].item() for percent in (0.0, 60.0)
    )
    targets = torch.ones(len(seen), dtype=torch.int64)
    return never, half, functional.cross_entropy(net.normalized(seen), targets).item()


def test_idm_check_06_cross_entropy_counts_its_weight_times_the_percentage(
    bench: TinyBench,
) -> None:
    never, half, nats = cross_entropy_terms(idm(ce_weight=0.5), bench)

    assert never == pytest.approx(0, abs=1e-5)
    assert half == pytest.approx(30 * nats, rel=1e-4)


def test_bacon_check_08_cross_entropy_counts_its_weight_times_the_percentage(
    bench: TinyBench,
) -> None:
    never, half, nats = cross_entropy_terms(bayes(ce_weight=0.5), bench)

    assert half - never == pytest.approx(30 * nats, rel=1e-4)


def gradients_beyond_images(method: QueueMatching, bench: TinyBench) -> bool:
    """Whether the real side or the network of the first step has gradients."""
    run = method.synthesize(units_of(method, target_of(bench.data, 2)), bench)
    next(run)
    frame = run.gi_frame
    assert frame is not None
    seen = frame.f_locals
    return any(part.requires_grad for part in seen["real"]) or any(
        p.requires_grad or p.grad is not None for p in seen["net"].parameters()
    )


def test_idm_check_08_only_images_carry_gradients(bench: TinyBench) -> None:
    assert not gradients_beyond_images(idm(), bench)


def test_bacon_check_08_only_images_carry_gradients(bench: TinyBench) -> None:
    assert not gradients_beyond_images(bayes(), bench)


def test_bacon_check_08_every_iteration_meets_the_network_of_the_queue(
    bench: TinyBench, monkeypatch
) -> None:
    met: list[tuple[Tensor, float]] = []
    normal = QueueMatching._match

    def watched(self: QueueMatching, net: Classifier, *given: object) -> object:
        met.append((parameters_to_vector(net.parameters()).clone(), float(given[-1])))  # type: ignore[arg-type]
        return normal(self, net, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(QueueMatching, "_match", watched)
    synthesize(bayes(together=3), bench)

    data = bench.data
    pixels = data.pixels(torch.arange(len(data)))
    real = RealPixels(pixels, data.labels, 3, data.mean, data.std)
    queue = Queue.begin(QueueSpec.model_validate(QUEUE), real)
    for iteration, member in queue.iterations(0, 5):
        weights, percent = met[iteration]
        assert torch.equal(weights, parameters_to_vector(member.net.parameters()))
        assert percent == member.meter.percent_since(Meter())
    assert len(met) == 5
    assert met[-1][1] > 0


def test_idm_check_08_images_keep_the_order_of_their_slots(bench: TinyBench) -> None:
    """Dark, middle and bright classes stay in the order of the labels."""
    images = synthesize(idm(iterations=1, lr_img=1e-20), bench)

    brightness = images.view(3, -1).mean(dim=1)
    assert brightness.argsort().tolist() == [0, 1, 2]


def test_idm_check_09_the_seed_decides_the_images(bench: TinyBench, resources) -> None:
    again = TinyBench(bench.data, folder=resources)
    other = TinyBench(bench.data, seed=1, folder=resources)

    images = synthesize(idm(), bench)

    assert torch.equal(images, synthesize(idm(), again))
    assert not torch.equal(images, synthesize(idm(), other))
    still = idm(iterations=1, lr_img=1e-20)  # the start itself
    assert not torch.equal(synthesize(still, bench), synthesize(still, other))


def test_bacon_check_05_with_the_squared_distance_it_is_idm_bit_for_bit(bench: TinyBench) -> None:
    assert torch.equal(synthesize(bayes(loss="squared"), bench), synthesize(idm(), bench))
    assert not torch.equal(synthesize(bayes(), bench), synthesize(idm(), bench))


def test_bacon_check_03_the_clip_term_does_not_move_the_images(
    bench: TinyBench, monkeypatch
) -> None:
    from distillhub.ops import bayes as terms

    with_clip = synthesize(bayes(), bench)
    monkeypatch.setattr(
        terms, "clip_as_published", lambda real, synthetic: torch.zeros(len(synthetic))
    )

    without = synthesize(bayes(), bench)

    assert (with_clip - without).abs().max() <= 1e-6


def test_bacon_the_likelihood_of_samples_is_another_method(bench: TinyBench) -> None:
    """With one deviation the variants share gradients of the mean; per feature they do not."""
    means = synthesize(bayes(), bench)

    samples = synthesize(bayes(likelihood="samples"), bench)

    assert not torch.equal(means, samples)


def test_syntheses_of_both_methods_share_one_queue(tmp_path, monkeypatch) -> None:
    made = []
    normal = _distribution.write_segment

    def counted(*arguments: object) -> None:
        made.append(arguments[2])
        normal(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_distribution, "write_segment", counted)
    data = tiny_data(classes=3, per_class=8)
    for method, seed, ipc in ((idm(), 0, 2), (bayes(), 0, 1), (bayes(iterations=60), 7, 1)):
        synthesize(method, TinyBench(data, seed=seed, folder=tmp_path), ipc=ipc)

    assert made == [0, 50]


def real_moments(method: QueueMatching, bench: TinyBench) -> tuple[Moments, list[int]]:
    """Those of the first step, and the images of each pass through the network."""
    sizes: list[int] = []

    class Watched(type(method)):  # type: ignore[misc]
        def _embed(self, net: Classifier, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super()._embed(net, x)

    labels = range(3)
    pools = [bench.data.pixels(bench.data.rows_of(label)) for label in labels]
    draws = [drawn(method.dsa, 0, label, bench) for label in labels]
    watched = Watched.model_validate(method.model_dump())
    net = bench.network("teacher")
    return watched._real(net, pools, labels, draws, 0, bench, single=False), sizes


@pytest.mark.parametrize(
    ("images", "passes"), [(256, [12]), (8, [8, 4]), (7, [4, 4, 4]), (3, [3, 1, 3, 1, 3, 1])]
)
def test_real_images_of_all_classes_pass_at_once_where_they_fit(
    bench: TinyBench, monkeypatch, images: int, passes: list[int]
) -> None:
    data, net = bench.data, bench.network("teacher")
    monkeypatch.setattr(_matching, "CPU_PIXELS", images * SIDE * SIDE)

    found, sizes = real_moments(bayes(), bench)

    assert sizes == passes
    for label in range(3):
        own = data.rows_of(label)
        rows = own[distinct(len(own), 4, bench.generator("real", 0, label))]
        normal = (data.images(rows) - data.mean[0]) / data.std[0]
        draw = draw_dsa(str(SETTINGS["dsa"]), (SIDE, SIDE), bench.generator("dsa", 0, label))
        features = net.features_normalized(apply_dsa(normal, draw)).detach()
        assert torch.allclose(found.mean[label], features.mean(dim=0), atol=1e-5)
        assert torch.allclose(found.std[label], features.std(dim=0), atol=1e-5)


def test_a_single_whole_image_keeps_only_the_easiest_real_ones(
    bench: TinyBench, monkeypatch
) -> None:
    monkeypatch.setattr(_distribution, "EASIEST", 3)
    counts: list[int] = []
    normal = _distribution.moments

    def watched(features: Tensor, *, spread: bool) -> object:
        counts.append(features.shape[1])
        return normal(features, spread=spread)

    monkeypatch.setattr(_distribution, "moments", watched)
    synthesize(idm(iterations=1, formation=1), bench, ipc=1)
    synthesize(idm(iterations=1, formation=1), bench, ipc=2)

    assert counts == [3] * 3 + [4] * 3


def test_a_single_whole_image_meets_cross_entropy_only_while_misclassified(
    bench: TinyBench,
) -> None:
    method, net = idm(formation=1), bench.network("teacher")
    x = torch.zeros(1, 1, 1, SIDE, SIDE)
    features = net.features_normalized(x[0])
    real = _distribution.moments(features.expand(1, 4, -1))
    right = int(net.normalized(x[0]).argmax())

    losses = [method._match(net, x, [label], real, [None], 50.0)[0].item() for label in range(3)]

    assert losses[right] == pytest.approx(0, abs=1e-5)
    assert all(losses[label] > 1 for label in range(3) if label != right)


def test_images_come_nearer_to_their_class_than_they_began(bench: TinyBench) -> None:
    quiet: dict[str, object] = {"iterations": 50, "ce_weight": 0.0, "init": "noise", "dsa": None}
    moving: list[Progress] = []
    resting: list[Progress] = []

    synthesize(idm(**quiet, lr_img=0.2), bench, moving)
    synthesize(idm(**quiet, lr_img=1e-20), bench, resting)

    last = [sum(r.metrics["loss"] for r in reports[-20:]) for reports in (moving, resting)]
    assert last[0] < 0.6 * last[1]


def test_half_precision_stays_near_the_full_one(bench: TinyBench) -> None:
    full = synthesize(idm(), bench)

    half = synthesize(idm(precision="bfloat16"), bench)

    assert not torch.equal(half, full)
    assert (half - full).abs().mean() < 0.02


def test_tf32_is_asked_for_within_a_step_alone(bench: TinyBench) -> None:
    """A CPU has none, so the images are those of float32; what a GPU is told is seen."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    told = []
    for precision in ("tf32", "float32"):
        with arithmetic(precision, bench.device):  # type: ignore[arg-type]
            told.append((products.allow_tf32, convolutions.allow_tf32))

    assert told == [(True, True), (False, False)]
    assert (products.allow_tf32, convolutions.allow_tf32) == before
    assert torch.equal(synthesize(idm(precision="tf32"), bench), synthesize(idm(), bench))


def losses_of(method: QueueMatching, bench: TinyBench) -> Tensor:
    reports: list[Progress] = []
    synthesize(method, bench, reports)
    return torch.tensor([report.metrics["loss"] for report in reports])


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo looks at it
def test_a_traced_embedding_gives_the_losses_of_the_plain_one(
    bench: TinyBench, monkeypatch
) -> None:
    """As `compile` does it, except that the graph is then run as it is."""
    traced = []

    def run(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        traced.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=run))

    assert torch.allclose(
        losses_of(bayes(compile=True), bench), losses_of(bayes(), bench), rtol=1e-5
    )
    assert 1 <= len(traced) <= 4  # with and without gradients; not anew in every step


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_a_compiled_embedding_gives_the_losses_of_the_plain_one(bench: TinyBench) -> None:
    assert torch.allclose(
        losses_of(bayes(compile=True), bench), losses_of(bayes(), bench), rtol=1e-4
    )


def first_images(method: QueueMatching, data: RealData, resources: Path) -> Tensor:
    """The start, [3, n, 1, 8, 8] in [0, 1]."""
    still = method.model_copy(update={"iterations": 1, "lr_img": 1e-20})
    return synthesize(still, TinyBench(data, folder=resources)).view(3, 2, 1, SIDE, SIDE)


def test_the_swapped_start_of_the_authors_fills_mosaics_with_whole_images(resources) -> None:
    """`compat.swap_start`, which their Tiny-ImageNet script does."""
    data = tiny_data(classes=3, per_class=8)
    swapped = {"compat": {"swap_start": True}}
    real = data.images(torch.arange(len(data)))

    whole = first_images(idm(**swapped), data, resources)
    mosaics = first_images(idm(**swapped, formation=1), data, resources)

    def nearest(images: Tensor, candidates: Tensor) -> float:
        return max(
            (candidates - image).abs().amax(dim=(1, 2, 3)).min().item()
            for image in images.flatten(0, 1)
        )

    assert nearest(whole, real) < 1e-5
    assert nearest(mosaics, real) > 0.05
    assert (
        nearest(
            split(mosaics.flatten(0, 1), 2), split(pack(real.repeat_interleave(4, 0), 2), 2)[:, 0]
        )
        < 1e-5
    )
    assert nearest(first_images(idm(), data, resources), real) > 0.05
    odd = list(idm(**swapped, formation=1).check(Target(2, 1, 1, 9, 9), (9, 9)))
    assert "cannot be cut into 2 x 2" in odd[0]


def test_the_queue_counts_in_whole_segments_and_once() -> None:
    target = Target(10, 2, 1, 8, 8)
    method = idm(iterations=60, together=5, batch_real=50)

    cost = method.cost(target, [60] * 9 + [20])

    assert cost[:4] == (120, "convnet2-w4", 235, 40)
    assert cost.trained is not None
    assert (cost.trained.calls, cost.trained.rows) == (100 * 4 * 1, 6)


def test_a_diverging_loss_names_step_and_unit(bench: TinyBench) -> None:
    with pytest.raises(DivergedError, match=r"at step \d") as caught:
        synthesize(idm(lr_img=1e30), bench)

    assert "class-" in caught.value.faults[0].where


@pytest.mark.parametrize(
    ("settings", "target", "counts", "said"),
    [
        ({}, Target(2, 1, 1, 9, 8), (8, 8), "cannot be cut into 2 x 2"),
        ({"batch_real": 9}, Target(2, 1, 1, 8, 8), (20, 8), "class 1 has 8 images"),
        ({}, Target(2, 1, 1, 8, 8), (2, 2), "queue.batch is 6"),
        ({"queue": {"arch": "convnet2-w4-bn", "batch": 4}}, Target(2, 1, 1, 8, 8), (9, 9), "-in"),
        ({"queue": {"arch": "convnet5", "batch": 4}}, Target(2, 1, 1, 8, 8), (9, 9), "8"),
    ],
)
def test_what_cannot_be_done_is_said_before_it_is_begun(settings, target, counts, said) -> None:
    faults = list(idm(**settings).check(target, counts))

    assert [fault for fault in faults if said in fault]


@pytest.mark.parametrize(
    ("method", "told"),
    [(idm(), 0), (bayes(loss="squared"), 0), (bayes(), 1), (bayes(likelihood="samples"), 1)],
)
def test_only_a_loss_with_a_deviation_needs_two_images_of_a_class(method, told) -> None:
    method = method.model_copy(update={"batch_real": "all"})

    faults = list(method.check(Target(2, 1, 1, 8, 8), (9, 1)))

    assert len(faults) == told
    assert all("class 1 has 1 training image; a deviation needs two" in one for one in faults)


def test_whole_classes_are_taken_when_asked_for(bench: TinyBench, monkeypatch) -> None:
    sizes: list[int] = []
    normal = _distribution.moments

    def watched(features: Tensor, *, spread: bool) -> object:
        sizes.append(features.shape[1])
        return normal(features, spread=spread)

    monkeypatch.setattr(_distribution, "moments", watched)

    synthesize(idm(batch_real="all", iterations=1), bench)

    assert sizes == [8, 8, 8]


def test_the_module_is_its_own_registry_entry() -> None:
    assert bacon.METHOD is BACON
