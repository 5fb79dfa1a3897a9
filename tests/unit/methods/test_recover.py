"""The recover loop: invariants 14.6 to 14.15 of the specification and parts B of RDED's page."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from distillhub.data import codec
from distillhub.data.specs import ImageFormat
from distillhub.errors import DivergedError, RecipeError
from distillhub.methods._recover import Recover
from distillhub.methods._starts import starting_images
from distillhub.methods.edc import EDC
from distillhub.methods.gvbsm import GVBSM
from distillhub.methods.sre2l import SRe2L
from distillhub.models.classifier import Classifier
from distillhub.models.statistics import ObserverStatistics
from distillhub.ops.pixels import denormalize
from distillhub.ops.progress import Progress, own
from distillhub.ops.recovering import Look, draw_look
from distillhub.units import Slot
from tests.fakes import made_by, stored, target_of, tiny_data, units_of
from tests.unit.methods.recovering import (
    RecoverBench,
    hooked,
    plain_distance,
    small_bench,
    synthesize,
)

ARCHS = ("convnet2-w8-bn", "convnet2-w8-bn")
PLAIN_LOOK = {"crop": None, "flip": False, "roll": 0}


def edc(**settings: object) -> EDC:
    return EDC.model_validate({"iterations": 4, "taps": {"patch_side": 2}} | settings)


def sre2l(**settings: object) -> SRe2L:
    return SRe2L.model_validate({"iterations": 4} | settings)


def terms(method: Recover, bench: RecoverBench, name: str = "loss", ipc: int = 2) -> list[float]:
    reports: list[Progress] = []
    synthesize(method, bench, ipc, reports)
    return [report.metrics[name] for report in reports]


def starts(method: Recover, bench: RecoverBench, ipc: int = 2) -> Tensor:
    """The images of all slots before the first step, normalised, in the order of the batches."""
    slots = [slot for group in method.plan(target_of(bench.data, ipc)) for slot in group.slots]
    return starting_images(method.init, slots, bench, bench.observers())


def stored_files(bench: RecoverBench) -> list[Path]:
    """The statistics that the method stored for the observers, in their order."""
    files = bench.folder.rglob("statistics.safetensors")
    by_weights = {ObserverStatistics.load(path).observer: path for path in files}
    return [by_weights[bench.weights(role)] for role in bench.observers()]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether gradients were recorded, of every pass through a network."""
    seen: list[bool] = []
    normalized = Classifier.normalized

    def watched(self: Classifier, x: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled())
        return normalized(self, x)

    monkeypatch.setattr(Classifier, "normalized", watched)
    return seen


# ---- the whole loop


def published_loop(bench: RecoverBench, method: EDC, ipc: int) -> tuple[Tensor, list[float]]:
    """One batch as the published code makes it, with our draws, start and order of the average."""
    data = bench.data
    nets = [bench.network(role) for role in bench.observers()]
    targets = [ObserverStatistics.load(path) for path in stored_files(bench)]
    labels = torch.arange(data.num_classes).repeat_interleave(ipc)
    x = starts(method, bench, ipc).requires_grad_()
    average = x.detach().clone()
    optimizer = torch.optim.Adam([x], lr=method.lr, betas=(0.5, 0.9), eps=1e-8)
    running: list[dict[str, list[Tensor]]] = [{} for _ in nets]
    losses = []
    low, high = (0 - data.mean[0]) / data.std[0], (1 - data.mean[0]) / data.std[0]
    for t in range(method.iterations):
        rate = method.lr * 0.5 * (1 + math.cos(math.pi * t / method.iterations))
        optimizer.param_groups[0]["lr"] = rate
        look = draw_look(
            (data.height, data.width), generator=bench.generator("look", 0, t), scale=(0.5, 1.0)
        )
        o = t % len(nets)
        z, r = plain_distance(
            nets[o], look.at(x), labels, targets[o], running=running[o], momentum=0.8
        )
        with torch.no_grad():
            z_average = nets[o].normalized(look.at(average))
        divergence = functional.kl_div(
            torch.log_softmax(z / 4, 1), torch.softmax(z_average / 4, 1), reduction="batchmean"
        )
        loss = functional.cross_entropy(z, labels) + 0.01 * r + 0.25 * divergence
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        x.data.clamp_(low, high)
        average = 0.99 * average + 0.01 * x.detach()
        losses.append(loss.item())
    return denormalize(x.detach(), data.mean, data.std), losses


def test_images_and_losses_are_those_of_the_published_loop(tmp_path: Path) -> None:
    bench = small_bench(folder=tmp_path)
    method = edc(iterations=6)

    reports: list[Progress] = []
    images = synthesize(method, bench, reports=reports)

    expected, losses = published_loop(bench, method, ipc=2)
    assert [r.metrics["loss"] for r in reports] == pytest.approx(losses, rel=1e-4)
    # Adam turns the sign of a gradient near 0 into a step: a few pixels may go another way
    assert (images - expected).abs().mean() < 1e-4


# ---- 14.6


def test_14_06_flatness_of_weight_0_costs_no_pass_and_changes_no_bit(passes: list[bool]) -> None:
    off = {"losses": {"flatness": {"weight": 0.0}}}
    other = {"losses": {"flatness": {"weight": 0.0, "beta": 0.5, "direction": "paper"}}}
    bench = small_bench()
    synthesize(edc(**off), bench)  # collects the statistics
    passes.clear()

    images = synthesize(edc(**off), bench)

    assert passes == [True] * 4
    assert torch.equal(images, synthesize(edc(**other), bench))
    passes.clear()
    synthesize(edc(), bench)
    assert passes == [True, False] * 4


def test_14_06_an_average_without_memory_is_the_image_itself() -> None:
    found = terms(edc(lr=1.0, losses={"flatness": {"beta": 0.0}}), small_bench(), "flatness")

    assert found == pytest.approx([0.0] * 4, abs=1e-6)


def test_14_06_flatness_begins_at_0_and_grows_with_the_memory() -> None:
    method = edc(lr=1.0, losses={"flatness": {"beta": 0.9}})
    first, *later = terms(method, small_bench(), "flatness")

    assert first == pytest.approx(0, abs=1e-7)
    assert min(later) > 1e-5


def test_14_06_the_average_of_the_published_code_lags_by_a_step() -> None:
    settings = {"iterations": 5, "lr": 1.0, "losses": {"flatness": {"beta": 0.0}}}

    found = terms(edc(**settings, compat={"ema_before_step": True}), small_bench(), "flatness")

    assert found[0] == pytest.approx(0, abs=1e-7)
    assert sum(found) > 1e-4  # E is the X of the step before


# ---- 14.10


def used(bench: RecoverBench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the observers that images pass, gradients recorded, in order."""
    order: list[int] = []
    normalized = Classifier.normalized

    def watched(self: Classifier, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            order.append(
                next(n for n, r in enumerate(bench.observers()) if bench.network(r) is self)
            )
        return normalized(self, x)

    monkeypatch.setattr(Classifier, "normalized", watched)
    return order


def test_14_10_observers_take_turns_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = RecoverBench(tiny_data(), archs=ARCHS + ARCHS[:1])
    order = used(bench, monkeypatch)

    synthesize(edc(iterations=4, batch={"size": 2}), bench)  # 3 batches of 4 steps, 3 observers

    assert order == [0, 1, 2] * 4


def test_14_10_a_batch_alone_has_the_observers_that_it_has_among_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = RecoverBench(tiny_data(), archs=ARCHS + ARCHS[:1])
    method = edc(iterations=4, batch={"size": 2})
    units = units_of(method, target_of(bench.data, 2))
    order = used(bench, monkeypatch)

    made_by(method, units[1:2], bench)

    assert order == [1, 2, 0, 1]


def test_a_uniform_schedule_draws_the_observers(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = small_bench()
    order = used(bench, monkeypatch)

    synthesize(edc(iterations=40, observer_schedule="uniform"), bench)

    assert 8 < sum(order) < 32
    assert order != [0, 1] * 20


def test_only_the_chosen_observers_guide() -> None:
    bench = RecoverBench(tiny_data(), archs=ARCHS + ARCHS[:1])

    synthesize(edc(observers=[2]), bench)

    assert set(bench.asked) == {"observer-2"}


# ---- 14.11


def test_14_11_pixels_stay_in_their_range_and_survive_their_codec() -> None:
    method = edc(lr=50.0, init={"kind": "noise"})

    images = synthesize(method, small_bench())

    assert images.min() == 0
    assert images.max() == 1
    bytes_once = codec.encode(images, ImageFormat())
    decoded = codec.to_float(codec.decode(bytes_once, 1))
    assert codec.encode(decoded, ImageFormat()) == bytes_once


def test_14_11_images_are_clipped_in_each_step_and_not_only_at_the_end() -> None:
    bench = small_bench()
    run = edc(lr=50.0).synthesize(units_of(edc(), target_of(bench.data, 2)), bench)
    low, high = -0.4 / 0.25, 0.6 / 0.25

    snapshots = [stored(r.snapshot()) for r in iter(lambda: next(run, None), None) if r.snapshot]

    images = [s["images"] for s in snapshots if own(s) is not None]
    assert len(images) == 4
    for pixels in images:
        assert isinstance(pixels, Tensor)
        assert pixels.min() == pytest.approx(low)
        assert pixels.max() == pytest.approx(high)


# ---- 14.14


@pytest.mark.parametrize("kind", ["real", "noise", "patches"])
def test_14_14_no_iterations_leave_the_images_as_they_start(kind: str) -> None:
    bench = small_bench()
    method = edc(iterations=0, init={"kind": kind})

    images = synthesize(method, bench)

    expected = denormalize(starts(method, bench), bench.data.mean, bench.data.std).clamp(0, 1)
    assert torch.equal(images, expected)
    assert not list(bench.folder.rglob("statistics.safetensors"))


def test_14_14_b1_the_loss_is_that_of_sre2l() -> None:
    bench = small_bench()
    method = sre2l(iterations=1, losses={"stat": 0.02, "tv": 0.003, "l2": 0.004})

    found = terms(method, bench)

    # class after class, image after image: 0, 1, 2, 0, 1, 2
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    look = draw_look((8, 8), generator=bench.generator("look", 0, 0), scale=(0.08, 1.0), roll=32)
    x = look.at(starts(method, bench))
    logits, layers = hooked(bench.network("observer-0"), x)
    norms = [(m, maps) for _, m, maps in layers if isinstance(m, torch.nn.BatchNorm2d)]
    r = torch.zeros(())
    for place, (norm, maps) in enumerate(norms):
        flat = maps.transpose(0, 1).flatten(1)
        off = torch.norm(norm.running_var - flat.var(1, unbiased=False))
        off = off + torch.norm(norm.running_mean - flat.mean(1))
        r = r + (10.0 if place == 0 else 1.0) * off
    tv = (
        torch.norm(x[:, :, :, :-1] - x[:, :, :, 1:])
        + torch.norm(x[:, :, :-1, :] - x[:, :, 1:, :])
        + torch.norm(x[:, :, 1:, :-1] - x[:, :, :-1, 1:])
        + torch.norm(x[:, :, :-1, :-1] - x[:, :, 1:, 1:])
    )
    l2 = torch.norm(x.reshape(6, -1), dim=1).mean()
    expected = functional.cross_entropy(logits, labels) + 0.02 * r + 0.003 * tv + 0.004 * l2
    assert found == pytest.approx([expected.item()], rel=1e-5)


def test_b1_sre2l_looks_at_no_real_image(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = small_bench()
    monkeypatch.setattr(type(bench.data), "images", lambda *_: pytest.fail("a real image"))
    monkeypatch.setattr(type(bench.data), "pixels", lambda *_: pytest.fail("a real image"))

    images = synthesize(sre2l(), bench)

    assert len(images) == 6


def test_b2_cda_looks_at_whole_images_first(monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[tuple[float, float]] = []

    def watched(size: tuple[int, int], *, scale: tuple[float, float], **rest: object) -> Look:
        scales.append(scale)
        return draw_look(size, scale=scale, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr("distillhub.methods._recover.draw_look", watched)

    synthesize(sre2l(augment={"curriculum": {"mode": "linear", "milestone": 0.5}}), small_bench())

    assert scales == [(1.0, 1.0), (pytest.approx(0.54), 1.0), (0.08, 1.0), (0.08, 1.0)]


def test_b3_gvbsm_has_a_densification_term_on_the_view() -> None:
    bench = small_bench()
    # No image of a class is like another, so their spectrum is not flat.
    method = GVBSM.model_validate(
        {"iterations": 2, "augment": PLAIN_LOOK, "taps": {"patch_side": 2}}
    )

    found = terms(method, bench, "densify")

    assert found[0] > 0
    assert terms(method, bench, "densify", ipc=1) == [0.0, 0.0]


def test_b3_convolutions_are_left_out_at_their_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    from distillhub.methods._recover_match import Matching

    skipped: list[int] = []
    look = Matching.look

    def watched(self: Matching, net: Classifier, x: Tensor, *, skip: tuple[str, ...]) -> object:
        skipped.append(len(skip))
        return look(self, net, x, skip=skip)

    monkeypatch.setattr(Matching, "look", watched)
    settings = {"iterations": 60, "taps": {"patch_side": 2}, "losses": {"densify": {"weight": 0}}}

    synthesize(GVBSM.model_validate(settings), small_bench())

    assert set(skipped) == {0, 1, 2}  # of two convolutions
    assert 0.25 < sum(skipped) / 120 < 0.55


def test_b4_batches_of_one_class_never_mix() -> None:
    target = target_of(tiny_data(), 5)
    method = edc(batch={"order": "one_class", "size": 3})

    groups = [[slot.label for slot in group.slots] for group in method.plan(target)]

    assert groups == [[0] * 3, [0] * 2, [1] * 3, [1] * 2, [2] * 3, [2] * 2]


@pytest.mark.parametrize(
    ("batch", "sizes", "first"),
    [
        ({"order": "class_major", "size": 4}, [4, 2], [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ({"order": "interleaved", "size": 4}, [4, 2], [(0, 0), (1, 0), (2, 0), (0, 1)]),
        ({"order": "class_major", "size": "all"}, [6], [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ({"order": "one_class", "size": "all"}, [2, 2, 2], [(0, 0), (0, 1)]),
    ],
)
def test_batches_are_cut_in_their_order(
    batch: dict[str, object], sizes: list[int], first: list[tuple[int, int]]
) -> None:
    groups = list(edc(batch=batch).plan(target_of(tiny_data(), 2)))

    assert [len(group.slots) for group in groups] == sizes
    assert groups[0].slots[:4] == tuple(Slot(*slot) for slot in first)


# ---- 14.15


def test_14_15_images_do_not_depend_on_the_number_of_workers() -> None:
    method = edc(batch={"size": 2})
    bench = small_bench()
    units = units_of(method, target_of(bench.data, 2))

    whole = made_by(method, units, bench)
    shards = [made_by(method, units[rank::2], small_bench()) for rank in range(2)]

    first, second = shards
    assert torch.equal(torch.cat([first[:2], second, first[2:]]), whole)
    again = made_by(method.model_copy(update={"together": 3}), units, small_bench())
    assert torch.equal(again, whole)


def test_14_15_the_seed_decides_the_images() -> None:
    one, same, other = (synthesize(edc(), small_bench(seed=seed)) for seed in (1, 1, 2))

    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# ---- running statistics over batches, and other faults to reproduce


def stat_terms(batch: dict[str, object], **settings: object) -> list[list[float]]:
    """The matching term of every step, batch by batch."""
    method = edc(batch=batch, lr=1e-20, augment=PLAIN_LOOK, **settings)
    bench = RecoverBench(tiny_data(), archs=ARCHS[:1])
    found = terms(method, bench, "stat")
    return [found[start : start + 4] for start in range(0, len(found), 4)]


def test_running_statistics_begin_anew_in_every_batch_unless_they_are_said_to_go_on() -> None:
    batch = {"size": 3}

    reset = stat_terms(batch)
    never = stat_terms(batch, match={"momentum_reset": "never"})
    alone = stat_terms(batch, match={"momentum": 0.0})

    # images stand still, so within a batch the statistics do, too
    for found, expected in zip(reset, alone, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    assert never[0] == pytest.approx(alone[0], rel=1e-5)
    assert never[1] != pytest.approx(alone[1], rel=1e-3)


def test_a_leak_starts_at_0_and_ties_all_batches_into_one_unit() -> None:
    method = edc(compat={"leak_momentum": True}, batch={"size": 2})
    target = target_of(tiny_data(), 2)

    leak = stat_terms({"size": 3}, compat={"leak_momentum": True})
    alone = stat_terms({"size": 3}, match={"momentum": 0.0})

    assert [group.name for group in method.plan(target)] == ["all"]
    assert len(list(edc(batch={"size": 2}).plan(target))) == 3
    assert leak[0][0] != pytest.approx(alone[0][0], rel=1e-3)
    distance = [abs(a - b) for a, b in zip(leak[0], alone[0], strict=True)]
    assert distance == sorted(distance, reverse=True)


def test_a_tied_set_resumes_bit_for_bit_with_its_running_statistics() -> None:
    method = edc(compat={"leak_momentum": True}, batch={"size": 2}, match={"drop_rate": 0.5})
    bench = small_bench()
    units = units_of(method, target_of(bench.data, 2))
    expected = made_by(method, units, bench)
    run = method.synthesize(units, bench)
    snapshots = [stored(r.snapshot()) for r in iter(lambda: next(run, None), None) if r.snapshot]

    resumed = []
    for state in snapshots[::3]:
        again = method.synthesize(units, bench, state)
        try:
            while True:
                next(again)
        except StopIteration as end:
            resumed.append(end.value.images)

    assert len(snapshots) == 12
    assert all(torch.equal(images, expected) for images in resumed)


def test_swapped_patch_statistics_reach_the_loss() -> None:
    swapped = terms(
        edc(iterations=1, compat={"swap_class_patch_stats": True}), small_bench(), "stat"
    )

    assert swapped != pytest.approx(terms(edc(iterations=1), small_bench(), "stat"), rel=1e-4)


# ---- observers


def test_an_observer_with_another_normalisation_sees_the_same_pixels() -> None:
    bench, other = (RecoverBench(tiny_data(), archs=ARCHS[:1]) for _ in range(2))
    net = other.network("observer-0")
    net.mean_values, net.std_values = (0.3,), (0.5,)
    net.mean.fill_(0.3)
    net.std.fill_(0.5)
    seen: list[Tensor] = []
    normalized = Classifier.normalized

    def watched(self: Classifier, x: Tensor) -> Tensor:
        if len(x) == 6:
            seen.append(self.denormalize(x))
        return normalized(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "normalized", watched)
        for each in (bench, other):
            synthesize(sre2l(iterations=1), each)

    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=1e-5)


def test_statistics_are_collected_once_per_observer() -> None:
    bench = small_bench()
    synthesize(edc(batch={"size": 2}), bench)
    kept = {p: p.stat().st_mtime_ns for p in bench.folder.rglob("statistics.safetensors")}

    synthesize(edc(losses={"stat": 0.5}), bench)

    assert len(kept) == 2
    assert kept == {p: p.stat().st_mtime_ns for p in bench.folder.rglob("statistics.safetensors")}


def test_a_cut_within_the_collection_resumes_to_the_same_images() -> None:
    method = edc(statistics={"batch": 5})
    units = units_of(method, target_of(tiny_data(), 2))
    expected = made_by(method, units, small_bench())
    run = method.synthesize(units, small_bench())
    states = [stored(next(run).snapshot()) for _ in range(6)]  # 4 reports per observer

    images = []
    for state in states:
        resumed = method.synthesize(units, small_bench(), state)
        try:
            while True:
                next(resumed)
        except StopIteration as end:
            images.append(end.value.images)

    assert all(torch.equal(found, expected) for found in images)


def test_files_stand_in_for_the_collection(tmp_path: Path, passes: list[bool]) -> None:
    bench = small_bench(folder=tmp_path / "bench")
    expected = synthesize(edc(), bench)
    files = [str(path) for path in stored_files(bench)]
    passes.clear()

    images = synthesize(edc(statistics={"files": files}), small_bench())

    assert torch.equal(images, expected)
    assert len(passes) == 8  # four steps, twice


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("order", "the statistics are of observer"),
        ("taps", "the recipe taps"),
        ("number", "1 files of statistics for 2 guiding observers"),
        ("bytes", "safetensors"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path: Path, change: str, message: str) -> None:
    bench = small_bench(folder=tmp_path / "bench")
    synthesize(edc(), bench)
    files = [str(path) for path in stored_files(bench)]
    taps = {"patch_side": 4 if change == "taps" else 2}
    if change == "order":
        files.reverse()
    elif change == "number":
        files.pop()
    elif change == "bytes":
        (tmp_path / "other").write_bytes(b"none of ours")
        files[0] = str(tmp_path / "other")

    with pytest.raises(RecipeError, match=message):
        synthesize(edc(taps=taps, statistics={"files": files}), bench)


def test_a_step_that_leaves_everything_out_moves_nothing() -> None:
    nothing = {"ce": 0.0, "flatness": {"weight": 0.0}}
    none = {"taps": {"bn": False, "patch_side": 2}, "match": {"drop_rate": 0.9999}}

    still = synthesize(edc(**none, losses=nothing, iterations=2), small_bench())

    assert torch.equal(still, synthesize(edc(iterations=0), small_bench()))


def test_an_observer_without_a_tapped_layer_is_refused() -> None:
    bench = RecoverBench(tiny_data(), archs=("convnet2-w4",))

    with pytest.raises(RecipeError, match=r"observer-0 .convnet2-w4. has no batch norm"):
        synthesize(sre2l(), bench)


def test_a_diverging_run_names_its_step_and_batch() -> None:
    bench = small_bench()
    bench.network("observer-1").net.head.weight.fill_(float("inf"))

    with pytest.raises(DivergedError, match="loss is nan at step 1") as refusal:
        synthesize(edc(), bench)  # the second step is that of the second observer

    assert refusal.value.faults[0].where == "synthesize batch-0000"
    assert "lower method.lr" in refusal.value.faults[0].mend


def test_half_precision_is_near_full_precision() -> None:
    full, half = (
        terms(edc(iterations=2, precision=p), small_bench()) for p in ("float32", "bfloat16")
    )

    assert half == pytest.approx(full, rel=0.05)
    assert half != full
