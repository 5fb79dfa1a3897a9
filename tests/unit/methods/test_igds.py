"""IGDS-style sampling: its numbered checks, and what estimators and guidance promise."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from distillhub.data.real import RealData
from distillhub.errors import PipelineError
from distillhub.methods._estimators import RealLatents, fit_prototype
from distillhub.methods._guidance import Guidance, Terms, guide
from distillhub.methods._scores import Context, ContextSpec, LatentPrototype, PrototypeSpec
from distillhub.methods.dit import DiT
from distillhub.methods.igds import IGDS
from distillhub.models.diffusion import Diffusion, build_generator
from distillhub.models.diffusion_files import build_vae
from distillhub.models.latent_nets import Contrast, LatentNet, LatentNetSpec, train_latent_net
from distillhub.models.specs import VaeTrainSpec
from distillhub.models.zoo import seeded
from distillhub.ops.diffusion import Posterior, Schedule, deterministic, posterior
from distillhub.ops.information import divergence_score, norms
from distillhub.ops.progress import Progress
from distillhub.units import Target
from tests.fakes import TinyBench, made_by, target_of, tiny_data, units_of

NET = {"width": 8, "depth": 2, "epochs": 2, "batch": 8}
SPEC = LatentNetSpec.model_validate(NET)


def quick(**settings: object) -> IGDS:
    given = {
        "steps": 6,
        "prototype": {"network": NET, "ensemble": 2},
        "context": {"network": NET},
        "beta": {"beta_max": 1.0},
    }
    return IGDS.model_validate(given | settings)


def images_of(
    method: IGDS | DiT, bench: TinyBench, ipc: int = 3, reports: list[Progress] | None = None
) -> Tensor:
    return made_by(method, units_of(method, target_of(bench.data, ipc)), bench, reports=reports)


# ---- a world whose best generator is known: normal clouds about the real images


@dataclass
class CloudWorld:
    """Knows E[x0 | z] for latents that lie about real ones with deviation `spread`."""

    points: Tensor
    """[n, c, h, w]."""
    of: Tensor
    """[n] int64: their classes."""
    spread: float
    image_shape: tuple[int, int, int] = (1, 8, 8)

    def __post_init__(self) -> None:
        self.latent_shape = self.image_shape
        self.labels = tuple(range(int(self.of.max()) + 1))
        self.identity = {"world": self.spread}

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        del generator
        return 2 * images - 1

    def decode(self, latents: Tensor) -> Tensor:
        return ((latents + 1) / 2).clamp(0, 1)

    def predict(
        self, z: Tensor, labels: Tensor, index: int, schedule: Schedule, **_: object
    ) -> Posterior:
        abar = schedule.abar[index].item()
        variance = abar * self.spread**2 + 1 - abar
        apart = z.unsqueeze(1) - abar**0.5 * self.points  # [m, n, c, h, w]
        logits = -apart.square().sum(dim=(2, 3, 4)) / (2 * variance)
        logits = logits.masked_fill(self.of != labels.unsqueeze(1), -torch.inf)
        centers = self.points + abar**0.5 * self.spread**2 / variance * apart
        x0 = (logits.softmax(1).view(*logits.shape, 1, 1, 1) * centers).sum(1)
        eps = (z - abar**0.5 * x0) / (1 - abar) ** 0.5
        return posterior(z, eps, None, index, schedule)


def overlapping(
    *, classes: int = 3, per_class: int = 60, width: float = 0.3, spread: float = 0.1
) -> TinyBench:
    """Classes that differ by a deviation or so in a few pixels, with their own generator."""
    generator = torch.Generator().manual_seed(5)
    means = 0.25 * torch.randn(classes, 1, 8, 8, generator=generator)
    means[:, :, 2:] = 0
    labels = torch.arange(classes * per_class) % classes
    latents = means[labels] + width * torch.randn(len(labels), 1, 8, 8, generator=generator)
    pixels = ((latents + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    data = RealData.in_memory(pixels, labels, [f"class {k}" for k in range(classes)])
    bench = TinyBench(data)
    bench.diffusions.append(CloudWorld(latents, labels, spread))  # type: ignore[arg-type]
    return bench


WORLD_NET = NET | {"epochs": 40, "batch": 32, "lr": 5e-3}
WORLD = {
    "flip": False,
    "prototype": {"network": WORLD_NET, "ensemble": 2},
    "context": {"network": WORLD_NET, "temperature": 1.0},
}
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def world() -> TinyBench:
    return overlapping()


def endings(bench: TinyBench, **settings: object) -> tuple[dict[str, float], Tensor]:
    """The mean scores of the finished latents of all seeds, and the images."""
    scores: list[dict[str, float]] = []
    images = []
    for seed in SEEDS:
        bench.seed = seed
        reports: list[Progress] = []
        images.append(images_of(IGDS.model_validate(WORLD | settings), bench, 8, reports))
        scores.append(dict(reports[-1].metrics))
    means = {name: sum(found[name] for found in scores) / len(scores) for name in scores[0]}
    return means, torch.cat(images)


# ---- the numbered checks


@pytest.mark.parametrize(
    "nothing",
    [{"scale": 0.0}, {"prototype_window": None, "context_window": None}],
    ids=["scale 0", "empty windows"],
)
def test_igds_check_01_without_guidance_it_is_the_plain_sampler(
    nothing: dict[str, object], tiny_bench: TinyBench
) -> None:
    plain = images_of(DiT(steps=6), tiny_bench)

    images = images_of(quick(guidance=nothing), tiny_bench)

    assert torch.equal(images, plain)
    assert not tiny_bench.folder.exists()  # no estimator was fitted


def test_igds_check_01_steps_outside_of_the_window_are_plain(tiny_bench: TinyBench) -> None:
    between = {"prototype_window": (48, 40), "context_window": (38, 30)}  # 6 steps: 49, 39.2, 29.4

    images = images_of(quick(guidance=between), tiny_bench)

    assert torch.equal(images, images_of(DiT(steps=6), tiny_bench))


def test_igds_check_02_without_beta_it_is_classifier_guidance(tiny_bench: TinyBench) -> None:
    alone = images_of(quick(context={"kind": "none"}), tiny_bench)
    both = images_of(quick(), tiny_bench)

    without = images_of(quick(beta={"beta_max": 0.0}), tiny_bench)

    assert torch.equal(without, alone)
    assert not torch.equal(both, alone)


def toy(*, kind: str = "cmi", centroid: str = "self", weight: float = 1.0) -> Terms:
    """Estimators of fresh weights on 2 classes of [1, 4, 4], in float64."""
    nets = []
    for seed in range(2):
        with seeded(seed):
            nets.append(LatentNet((1, 4, 4), 2, width=4, depth=2).double())
    spec = ContextSpec.model_validate({"kind": kind, "centroid": centroid, "temperature": 1.0})
    log_q = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).double().log()
    whiten = torch.eye(4).double()
    context = Context(spec, nets[1], log_q, whiten, flip=True, bound=0.0)
    return Terms(LatentPrototype([(nets[0], 1.5)], True, 0.0), context, (1.0, weight))


def toy_gradient(terms: Terms, z: Tensor, eps: Tensor) -> Tensor:
    schedule = Schedule.linear(10)
    step = posterior(z, eps, None, 6, schedule)
    labels = torch.tensor([0, 1])
    gradient, _ = guide(terms, terms.weights, z, step, labels, 6, schedule, full=False)
    assert gradient is not None
    return gradient


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_igds_check_02_only_the_context_couples_the_samples_of_a_class(weight: float) -> None:
    terms, z, eps = toy(weight=weight), normal(6, 1, 4, 4), normal(6, 1, 4, 4, seed=1)
    others = z.clone()
    others[1:3] = normal(2, 1, 4, 4, seed=2)  # of the first class, but not the first sample

    before, after = (toy_gradient(terms, latents, eps) for latents in (z, others))

    assert torch.equal(after[3:], before[3:])  # the other class
    assert torch.equal(after[0], before[0]) == (weight == 0)


@pytest.mark.parametrize("kind", ["cmi", "logdet"])
def test_igds_check_03_a_single_image_per_class_has_no_context(
    kind: str, tiny_bench: TinyBench
) -> None:
    forced = {"table": {1: 5.0}}
    alone = images_of(quick(context={"kind": "none"}), tiny_bench, 1)

    images = images_of(quick(context={"kind": kind, "network": NET}, beta=forced), tiny_bench, 1)

    assert torch.equal(images, alone)


@pytest.mark.parametrize(
    ("kind", "centroid"), [("cmi", "self"), ("cmi", "real"), ("logdet", "self")]
)
def test_igds_check_08_gradients_match_finite_differences(kind: str, centroid: str) -> None:
    terms = toy(kind=kind, centroid=centroid, weight=0.7)
    z, eps, schedule = normal(6, 1, 4, 4), normal(6, 1, 4, 4, seed=1), Schedule.linear(10)
    labels = torch.tensor([0, 1])

    def objective(latents: Tensor) -> float:
        x0 = posterior(latents, eps, None, 6, schedule).x0.view(2, 3, 1, 4, 4)
        assert terms.context is not None
        prototype = terms.prototype.score(x0, labels).sum()
        return (prototype + 0.7 * terms.context.score(x0, labels).sum()).item()

    found = toy_gradient(terms, z, eps)

    h = 1e-5
    for place in [(0, 0, 0, 0), (2, 0, 1, 3), (3, 0, 2, 2), (5, 0, 3, 1)]:
        step = torch.zeros_like(z)
        step[place] = h
        expected = (objective(z + step) - objective(z - step)) / (2 * h)
        assert found[place].item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_igds_check_08_the_full_gradient_goes_through_the_generator(
    tiny_bench: TinyBench,
) -> None:
    diffusion, schedule = tiny_bench.diffusion(), Schedule.linear(10)
    z, labels = normal(4, 1, 8, 8).float(), torch.tensor([0, 1, 2, 0])
    direction = normal(4, 1, 8, 8, seed=1).float()

    def x0(latents: Tensor, *, differentiable: bool = False) -> Tensor:
        return diffusion.predict(
            latents, labels, 6, schedule, cfg=2.0, cfg_channels=1, differentiable=differentiable
        ).x0

    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((x0(leaf, differentiable=True) * direction).sum(), leaf)

    step = 1e-2 * normal(4, 1, 8, 8, seed=2).float()
    expected = ((x0(z + step) - x0(z - step)) * direction).sum(dim=(1, 2, 3)) / 2
    # 1e-2: float32 differences over a step that is not small
    torch.testing.assert_close((gradient * step).sum(dim=(1, 2, 3)), expected, rtol=1e-2, atol=1e-3)


def test_igds_check_09_guidance_raises_the_prototype_score(world: TinyBench) -> None:
    weak = {"scale": 1e-9}  # estimators are asked, but move nothing
    plain, _ = endings(world, context={"kind": "none"}, guidance=weak)

    guided, _ = endings(world, context={"kind": "none"})

    assert guided["prototype"] > plain["prototype"] + 0.1


def test_igds_check_09_more_beta_gives_no_less_context(world: TinyBench) -> None:
    context = [
        endings(world, beta={"table": {8: beta}})[0]["context"] for beta in (1e-6, 1.0, 4.0, 16.0)
    ]

    assert all(more >= less for less, more in pairwise(context))
    assert context[-1] > 1.5 * context[0]


def test_igds_check_10_latents_keep_the_norms_of_plain_samples(world: TinyBench) -> None:
    def sizes(images: Tensor) -> Tensor:
        return norms(2 * images - 1).flatten()

    _, plain = endings(world, guidance={"scale": 0.0})
    _, guided = endings(world)

    assert sizes(guided).min() > 0.95 * sizes(plain).min()
    assert sizes(guided).max() < 1.05 * sizes(plain).max()
    assert not torch.equal(guided, plain)


def faults(ipc: int, **settings: object) -> list[str]:
    return list(quick(**settings).check(Target(3, ipc, 1, 8, 8), (6, 6, 6)))


def test_igds_check_11_a_table_must_know_the_images_per_class() -> None:
    table = {"table": {1: 0.0, 10: 0.4}}

    assert faults(10, beta=table) == []
    assert faults(50, beta=table) == ["beta.table has no value for ipc 50, only for 1, 10; add one"]
    assert faults(50) == []


def test_igds_check_11_a_table_replaces_the_rule(tiny_bench: TinyBench) -> None:
    zero = images_of(quick(beta={"beta_max": 1.0, "table": {3: 0.0}}), tiny_bench)

    assert torch.equal(zero, images_of(quick(context={"kind": "none"}), tiny_bench))


# ---- estimators


def separable() -> TinyBench:
    return TinyBench(tiny_data(per_class=40))


def test_the_bound_of_an_estimator_that_knows_all_is_the_entropy_of_the_labels() -> None:
    bench = separable()
    spec = PrototypeSpec(network=SPEC.model_copy(update={"epochs": 30}), ensemble=1)

    found = fit_prototype(spec, bench, RealLatents(bench, flip=True))

    limit = torch.tensor(3.0).log().item()
    assert 0.9 * limit < found.bound <= limit


def test_the_bound_is_the_mean_score_of_held_out_images() -> None:
    bench = separable()
    latents = RealLatents(bench, flip=False)
    found = fit_prototype(PrototypeSpec(network=SPEC, ensemble=2), bench, latents)
    held = bench.data.held_out

    scores = found.score(latents.held_out, held.labels)  # one sample each

    expected = torch.tensor(3.0).log() + scores.mean()
    assert found.bound == pytest.approx(expected.item(), abs=1e-5)


def test_estimators_are_fitted_once_for_all_seeds_and_anew_for_other_settings() -> None:
    bench = separable()
    images_of(quick(), bench)
    fitted = {place.name for place in bench.folder.iterdir()}

    bench.seed = 1
    images_of(quick(guidance={"scale": 2.0}), bench)
    assert {place.name for place in bench.folder.iterdir()} == fitted

    images_of(quick(prototype={"network": NET | {"seed": 1}, "ensemble": 2}), bench)
    assert len({place.name for place in bench.folder.iterdir()} - fitted) == 3  # and the balance


def test_another_generator_has_estimators_of_its_own() -> None:
    bench = separable()
    images_of(quick(), bench)
    before = len(list(bench.folder.iterdir()))

    bench.diffusions[:] = [build_generator("dit-w16-d2-h2-p2", 3, 1, 8, 8, seed=4)]
    images_of(quick(), bench)

    assert len(list(bench.folder.iterdir())) == 2 * before


def test_members_of_an_ensemble_differ() -> None:
    bench = separable()
    found = fit_prototype(
        PrototypeSpec(network=SPEC, ensemble=2), bench, RealLatents(bench, flip=False)
    )

    assert isinstance(found, LatentPrototype)
    first, second = (net.head.weight for net, _ in found.members)
    assert not torch.equal(first, second)


def test_a_training_with_contrast_shows_more_within_classes() -> None:
    data = overlapping().data
    latents, labels = (2 * data.images(range(len(data))) - 1).unsqueeze(1), data.labels
    spec = LatentNetSpec.model_validate(WORLD_NET)

    def shown(weight: float) -> float:
        contrast = Contrast(weight=weight, share=0.5, temperature=1.0)
        net = train_latent_net(spec, latents, labels, 3, contrast=contrast)
        log_p = net(latents[:, 0]).log_softmax(1)
        groups = [log_p[labels == label].unsqueeze(0) for label in range(3)]
        return torch.cat([divergence_score(group) for group in groups]).mean().item()

    assert shown(1.0) > 1.2 * shown(0.0)


def test_mirror_images_are_another_view() -> None:
    bench = separable()

    both = RealLatents(bench, flip=True).fit

    assert both.shape[1] == 2
    assert torch.equal(both[:, 1], both[:, 0].flip(-1))


def test_latents_of_an_autoencoder_are_kept() -> None:
    bench = separable()
    with seeded(0):
        vae = build_vae(VaeTrainSpec(channels=2, widths=(8, 8)), 1)
    net = build_generator("dit-w16-d2-h2-p2", 3, 2, 4, 4, seed=0)
    made = Diffusion(net._transformer, vae, image_shape=(1, 8, 8), labels=range(3))
    bench.diffusions.append(made)

    images = images_of(quick(), bench)
    kept = sorted(place.name.partition("-latents")[0] for place in bench.folder.glob("*latents*"))

    assert images.shape == (9, 1, 8, 8)
    assert kept == ["igds", "igds"]  # of the fit part and of the held-out one
    again = RealLatents(bench, flip=True).fit
    assert torch.equal(again, RealLatents(bench, flip=True).fit)
    assert again.shape[1:] == (2, 2, 4, 4)


def test_a_recipe_without_held_out_images_is_told_how_to_have_some() -> None:
    data = tiny_data()
    bench = TinyBench(
        RealData.in_memory(data.pixels(range(18)), data.labels, data.class_names, holdout=0.0)
    )

    with pytest.raises(PipelineError, match=r"dataset\.holdout.*\n.*mend: set it to 0\.1"):
        images_of(quick(), bench)


# ---- guidance


def test_the_teacher_guides_on_pixels(tiny_bench: TinyBench) -> None:
    method = quick(prototype={"space": "pixel"}, context={"kind": "none"})
    reports: list[Progress] = []

    images = images_of(method, tiny_bench, reports=reports)

    assert method.needs == ("generator", "teacher")
    assert not torch.equal(images, images_of(DiT(steps=6), tiny_bench))
    assert reports[-1].metrics["prototype"] < 0
    assert quick().needs == ("generator",)


@pytest.mark.parametrize("space", ["latent", "pixel"])
def test_the_full_gradient_is_another_one(space: str, tiny_bench: TinyBench) -> None:
    prototype = {"space": space, "network": NET, "ensemble": 1}

    short, full = (
        images_of(quick(prototype=prototype, guidance={"gradient": path}), tiny_bench)
        for path in ("stop", "full")
    )

    assert not torch.equal(short, full)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_grouping_of_classes_does_not_matter(sampler: str, tiny_bench: TinyBench) -> None:
    together, apart = (images_of(quick(sampler=sampler, together=n), tiny_bench) for n in (3, 1))

    torch.testing.assert_close(together, apart, rtol=0, atol=1e-4)


def step_at(index: int, schedule: Schedule, *, sigma: float = 0.3) -> Posterior:
    z, eps = normal(2, 1, 4, 4), normal(2, 1, 4, 4, seed=1)
    plain = posterior(z, eps, None, index, schedule)
    return plain._replace(sigma=torch.full_like(z, sigma))


def test_ddim_is_guided_by_less_noise() -> None:
    schedule, g = Schedule.linear(10), normal(2, 1, 4, 4, seed=3)
    step = step_at(6, schedule)
    guidance = Guidance(scale=0.7, normalise=False, clip=None)
    abar = schedule.abar[6].item()
    z = abar**0.5 * step.x0 + (1 - abar) ** 0.5 * step.eps

    shift = guidance.shift(step, g, 6, schedule, "ddim")

    eps = step.eps - 0.7 * (1 - abar) ** 0.5 * g
    expected = deterministic(posterior(z, eps, None, 6, schedule), 6, schedule)
    torch.testing.assert_close(deterministic(step, 6, schedule) + shift, expected)


def test_ddpm_is_guided_by_the_variance() -> None:
    schedule, g = Schedule.linear(10), normal(2, 1, 4, 4, seed=3)
    step = step_at(6, schedule)

    raw = Guidance(scale=2.0, normalise=False, clip=None).shift(step, g, 6, schedule, "ddpm")
    scaled = Guidance(scale=2.0, clip=None).shift(step, 1e5 * g, 6, schedule, "ddpm")

    torch.testing.assert_close(raw, 2 * 0.09 * g)
    torch.testing.assert_close(norms(scaled), 2 * 0.09 * norms(step.eps))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_a_shift_is_at_most_its_share_of_sigma(sampler: str) -> None:
    schedule, g = Schedule.linear(10), normal(2, 1, 4, 4, seed=3)
    step = step_at(6, schedule)

    shift = Guidance(scale=100.0, clip=0.5).shift(step, g, 6, schedule, sampler)

    torch.testing.assert_close(norms(shift), torch.full_like(norms(shift), 0.5 * 0.3 * 4))


def test_windows_are_scaled_to_the_steps() -> None:
    guidance = Guidance()

    def inside(term: int, steps: int) -> list[int]:
        return [index for index in range(steps) if guidance.inside(term, index, steps)]

    assert inside(0, 50) == list(range(10, 46))
    assert inside(1, 50) == list(range(20, 46))
    assert inside(0, 8) == [2, 3, 4, 5, 6]  # 7 steps apart: 14, 21, .. 42 of 49


def test_the_last_step_is_never_guided() -> None:
    guidance = Guidance(prototype_window=(49, 0))

    assert not guidance.inside(0, 0, 50)
    assert guidance.inside(0, 1, 50)


@pytest.mark.parametrize("window", [(10, 45), (50, 3), (4, -1)])
def test_impossible_windows_are_refused(window: Sequence[int]) -> None:
    with pytest.raises(ValueError, match="does not run from a noisy step to a clean one"):
        Guidance(prototype_window=window)  # type: ignore[arg-type]


def test_reports_carry_the_bounds_in_nats(tiny_bench: TinyBench) -> None:
    reports: list[Progress] = []

    images_of(quick(), tiny_bench, reports=reports)

    assert all({"i_bound", "h_bound"} <= report.metrics.keys() for report in reports)
    assert reports[-1].metrics.keys() == {"i_bound", "h_bound", "prototype", "context"}
    assert reports[-1].metrics["context"] >= 0


def test_a_lattice_of_few_samples_is_a_fault() -> None:
    assert "lattice needs at least 5" in faults(3, init_noise="lattice")[0]
    assert faults(5, init_noise="lattice") == []


def test_cost_counts_guided_steps_and_what_is_trained() -> None:
    target, counts = Target(10, 4, 1, 8, 8), (100,) * 10
    method = quick(steps=50, together=5, flip=False)

    cost = method.cost(target, counts)
    parts = {part.name: part for part in cost.parts}

    assert cost.steps == 100
    assert (parts["generator"].calls, parts["generator"].rows) == (100, 40)  # two calls of 5 x 4
    assert (parts["prototype"].calls, parts["prototype"].rows) == (2 * 36 * 2, 20)  # 2 members
    assert (parts["context"].calls, parts["context"].rows) == (2 * 26, 20)
    assert parts["prototype network"].calls == 2 * 2 * (1000 // 8)
    assert parts["prototype network"].shared
    plain = method.model_copy(update={"guidance": Guidance(scale=0)}).cost(target, counts)
    assert [part.name for part in plain.parts] == ["generator", "decode"]


def test_the_flops_of_a_score_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from distillhub.models.latent_nets import forward_flops

    net = LatentNet((4, 32, 32), 10, width=128, depth=4)
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 4, 32, 32))

    # The linear layer is left out.
    assert forward_flops(LatentNetSpec(), (4, 32, 32)) == counter.get_total_flops() - 2 * 128 * 10


def test_every_place_that_names_the_method_says_style() -> None:
    assert IGDS.label == "IGDS-style"
    assert "no reproduction" in IGDS.notes[0]
    # The provenance names every field of its own that is not of all methods.
    own = set(IGDS.model_fields) - set(DiT.model_fields)
    assert {name for name in own if f"`method.{name}`" in IGDS.notes[1]} == own
