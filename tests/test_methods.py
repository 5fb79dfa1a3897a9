"""What every method keeps, ours and those of other packages: the contract of `methods._base`."""

import inspect
import random
from collections import Counter
from collections.abc import Generator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distillhub import methods
from distillhub.methods._base import Assembly, Method, Synthesis
from distillhub.ops.progress import MARK, Progress, State
from tests.fakes import TinyBench, made_by, stored, target_of, tiny_data, units_of

IPC = 2
TINY_QUEUE = {"arch": "convnet2-w4", "batch": 4, "train_steps": 1, "fetch": 1}
TINY_LATENT_NET = {"width": 4, "depth": 1, "epochs": 1, "batch": 8}
QUICK: dict[str, dict[str, object]] = {
    "dm": {"iterations": 4, "batch_real": 4, "arch": "convnet2-w4", "together": 2},
    "idm": {"iterations": 4, "batch_real": 4, "queue": TINY_QUEUE, "together": 2},
    "bacon": {"iterations": 4, "batch_real": 4, "queue": TINY_QUEUE, "together": 2},
    "doping": {"base": "base", "student": {"protocol": "smoke-cpu-1"}},
    "dit": {"steps": 4, "together": 2},
    "dsco": {
        "steps": 3,
        "together": 2,
        "nopt": {"iterations": 11, "projector": {"widths": [8, 8, 16, 16], "groups": 4}},
    },
    "igds": {
        "steps": 4,
        "together": 2,
        "prototype": {"network": TINY_LATENT_NET, "ensemble": 1},
        "context": {"network": TINY_LATENT_NET},
    },
    "edc": {"iterations": 3, "together": 2, "batch": {"size": 2}, "taps": {"patch_side": 2}},
    "gvbsm": {"iterations": 3, "batch": {"size": 4}},
    "sre2l": {"iterations": 3, "batch": {"size": 3}, "taps": {"conv": True}},
}
"""Settings under which a method is done in a moment on 3 classes of 8 x 8 pixels."""
OF_PARTS = {"rded"}
"""Methods whose images are made of parts of real ones, so that none is the copy of a row."""


@pytest.fixture(params=methods.names())
def method(request: pytest.FixtureRequest) -> Method:
    """Every known method in turn."""
    return methods.load(request.param).model_validate(QUICK.get(request.param, {}))


@pytest.fixture
def bench(tmp_path) -> TinyBench:
    return TinyBench(tiny_data(), folder=tmp_path)


def made(method: Method, bench: TinyBench) -> Tensor:
    return made_by(method, units_of(method, target_of(bench.data, IPC)), bench)


def of_method(report: Progress) -> bool:
    """Whether it tells of the method itself, and not of a resource that is being made."""
    return report.snapshot is None or MARK not in report.snapshot()


def finish(run: Generator[Progress, None, Synthesis]) -> Synthesis:
    while True:
        try:
            next(run)
        except StopIteration as end:
            synthesis: Synthesis = end.value
            return synthesis


def test_every_slot_is_planned_once(method: Method, bench: TinyBench) -> None:
    groups = list(method.plan(target_of(bench.data, IPC)))

    slots = Counter(slot for group in groups for slot in group.slots)
    assert slots == {(label, number): 1 for label in range(3) for number in range(IPC)}
    assert len({group.name for group in groups}) == len(groups)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_the_shape_and_range_of_the_contract(method: Method, channels: int) -> None:
    bench = TinyBench(tiny_data(channels=channels))

    images = made(method, bench)

    assert images.shape == (3 * IPC, channels, 8, 8)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert not images.requires_grad


def test_the_same_seed_gives_the_same_images(method: Method) -> None:
    first, second = (made(method, TinyBench(tiny_data(), seed=5)) for _ in range(2))

    assert torch.equal(first, second)


def test_resume_gives_the_same_images_as_no_cut(method: Method, bench: TinyBench) -> None:
    units = units_of(method, target_of(bench.data, IPC))[: method.together]
    whole = method.synthesize(units, bench)
    snapshots = [
        stored(report.snapshot())
        for report in iter(lambda: next(whole, None), None)
        if report.snapshot is not None
    ]
    expected = finish(method.synthesize(units, bench)).images

    resumed = [finish(method.synthesize(units, bench, state)).images for state in snapshots]

    assert all(torch.equal(images, expected) for images in resumed)


def test_a_snapshot_is_a_copy_that_later_steps_leave_alone(
    method: Method, bench: TinyBench
) -> None:
    units = units_of(method, target_of(bench.data, IPC))[: method.together]
    run = method.synthesize(units, bench)
    save = next(run).snapshot
    state = save() if save is not None else {}
    kept = stored(state)

    finish(run)

    assert _plain(state) == _plain(kept)


def _plain(state: State) -> dict[str, object]:
    return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in state.items()}


def test_images_do_not_depend_on_the_order_of_units(method: Method, bench: TinyBench) -> None:
    units = units_of(method, target_of(bench.data, IPC))[: method.together]
    forward = finish(method.synthesize(units, bench)).images

    backward = finish(method.synthesize(units[::-1], bench)).images

    sizes = [len(unit.slots) for unit in units]
    in_order = torch.cat(backward.split(sizes[::-1])[::-1])
    assert torch.equal(in_order, forward)


def test_images_do_not_depend_on_who_else_is_made(method: Method, bench: TinyBench) -> None:
    units = units_of(method, target_of(bench.data, IPC))
    last = units[-method.together :]
    everything = made_by(method, units[: -method.together] + last, bench)

    alone = made_by(method, last, TinyBench(bench.data))

    assert torch.equal(alone, everything[-len(alone) :])


def test_no_global_generator_is_touched(method: Method, bench: TinyBench) -> None:
    before = _global_generators()

    made(method, bench)

    assert _global_generators() == before


def _global_generators() -> tuple[object, ...]:
    numpy_state = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 - it must not move
    key, position = numpy_state["key"].tobytes(), numpy_state["pos"]
    return torch.get_rng_state().tolist(), random.getstate(), key, position


def test_networks_are_left_as_they_were(method: Method, bench: TinyBench) -> None:
    roles = ["teacher", "observer-0"]
    before = {role: _description(bench.network(role)) for role in roles}

    made(method, bench)

    after = {role: _description(bench.network(role)) for role in roles}
    assert after == before


def _description(network: nn.Module) -> list[object]:
    hooks = [
        len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks)
        for part in network.modules()
    ]
    modes = [part.training for part in network.modules()]
    weights = [(name, value.sum().item(), value.grad) for name, value in network.named_parameters()]
    return [hooks, modes, weights]


def test_real_data_is_left_as_it_was(method: Method, bench: TinyBench) -> None:
    before = bench.data.pixels(range(len(bench.data)))

    made(method, bench)

    assert torch.equal(bench.data.pixels(range(len(bench.data))), before)


def test_copies_of_real_images_name_their_rows(method: Method, bench: TinyBench) -> None:
    units = units_of(method, target_of(bench.data, IPC))[: method.together]

    synthesis = finish(method.synthesize(units, bench))

    if isinstance(synthesis, Assembly):
        assert torch.equal(synthesis.images[synthesis.rows >= 0], synthesis.real.images(range(3)))
        return
    copies = method.real_pixels and method.name not in OF_PARTS
    assert (synthesis.rows is not None) == copies
    if synthesis.rows is not None:
        labels = torch.tensor([slot.label for unit in units for slot in unit.slots])
        assert torch.equal(synthesis.images, bench.data.images(synthesis.rows))
        assert torch.equal(bench.data.labels[synthesis.rows], labels)
        assert len(synthesis.rows.unique()) == len(synthesis.rows)


def test_progress_ends_at_its_total(method: Method, bench: TinyBench) -> None:
    units = units_of(method, target_of(bench.data, IPC))[: method.together]
    run = method.synthesize(units, bench)

    reports = [report for report in iter(lambda: next(run, None), None) if of_method(report)]

    assert [report.done for report in reports] == list(range(1, len(reports) + 1))
    assert {report.total for report in reports} == {len(reports)}


def test_planned_steps_are_the_steps_that_run(method: Method, bench: TinyBench) -> None:
    reports: list[Progress] = []
    target = target_of(bench.data, IPC)

    made_by(method, units_of(method, target), bench, reports=reports)

    steps = sum(of_method(report) for report in reports)
    assert steps == method.cost(target, bench.data.counts).steps


def test_a_possible_recipe_passes_the_check(method: Method, bench: TinyBench) -> None:
    assert list(method.check(target_of(bench.data, IPC), bench.data.counts)) == []


def test_methods_are_frozen_and_refuse_unknown_settings(method: Method) -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(method, "together", 3)  # noqa: B010 - mypy knows that it is read-only
    with pytest.raises(ValueError, match="Extra inputs"):
        type(method).model_validate({**method.model_dump(), "lr_image": 1})


def test_a_method_file_names_its_paper(method: Method) -> None:
    assert method.paper.title
    assert method.paper.venue
    assert inspect.getdoc(inspect.getmodule(type(method)))


def test_an_unknown_method_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="no_such_method"):
        methods.load("no_such_method")
