"""The film of IDM's queue: its meters, what shares it, and what a cut leaves of it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from distillhub.methods import _distribution
from distillhub.methods._distribution import _Film
from distillhub.models import queue as module
from distillhub.models.queue import SEGMENT, STATE, Member, Queue, QueueSpec, RealPixels
from tests.fakes import TinyBench, tiny_data

COUNT = 2 * SEGMENT + 20


def spec(**settings: object) -> QueueSpec:
    quick = {
        "arch": "convnet2-w4",
        "batch": 6,
        "train_steps": 1,
        "generate_every": 7,
        "capacity": 6,
        "reset_every": 20,
    }
    return QueueSpec.model_validate(quick | settings)


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    """Queues are the same in all tests of this module."""
    return tmp_path_factory.mktemp("resources")


@pytest.fixture
def bench(resources) -> TinyBench:
    return TinyBench(tiny_data(classes=3, per_class=8), folder=resources)


def weights_of(net: torch.nn.Module) -> Tensor:
    return torch.nn.utils.parameters_to_vector(net.parameters()).detach().clone()


def published(
    wanted: QueueSpec, bench: TinyBench, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, Tensor, dict[int, float]]]:
    """Per iteration: number and weights of the network drawn, and the meters of the queue.

    A meter counts the predictions of each training step; all are emptied every `reset_every`
    iterations, as the authors' loop does it.
    """
    counted: dict[int, list[int]] = {}
    training = [0]
    train, loss = Queue._train, module.cross_entropy

    def watched_train(queue: Queue, member: Member, *places: int) -> None:
        training[0] = member.born
        train(queue, member, *places)

    def watched_loss(logits: Tensor, labels: Tensor) -> Tensor:
        meter = counted.setdefault(training[0], [0, 0])
        meter[0] += int((logits.argmax(1) == labels).sum())
        meter[1] += len(labels)
        return loss(logits, labels)

    data = bench.data
    rows = torch.arange(len(data))
    pixels = RealPixels(data.pixels(rows), data.labels, data.num_classes, data.mean, data.std)
    queue, found = Queue.begin(wanted, pixels), []
    with monkeypatch.context() as patch:
        patch.setattr(Queue, "_train", watched_train)
        patch.setattr(module, "cross_entropy", watched_loss)
        for iteration, member in queue.iterations(0, COUNT):
            if iteration % wanted.reset_every == 0:
                counted.clear()
            meters = {
                one.born: 100 * counted[one.born][0] / counted[one.born][1]
                if one.born in counted
                else 0.0
                for one in queue.members
            }
            found.append((member.born, weights_of(member.net), meters))
    return found


@pytest.mark.parametrize("reset_every", [20, 75])
def test_every_iteration_meets_the_network_and_the_meter_of_the_published_loop(
    bench: TinyBench, monkeypatch, reset_every: int
) -> None:
    wanted = spec(reset_every=reset_every)
    expected = published(wanted, bench, monkeypatch)
    film = _Film(wanted, bench)

    for iteration, (born, weights, meters) in enumerate(expected):
        net, accuracy = film.network(iteration)
        assert torch.equal(weights_of(net), weights)
        assert accuracy == meters[born]


def test_under_a_stride_the_meter_goes_on_in_every_iteration(bench: TinyBench, monkeypatch) -> None:
    wanted = spec(stride=10, generate_every=50)
    expected = published(wanted, bench, monkeypatch)
    film = _Film(wanted, bench)

    for iteration, (_, _, meters) in enumerate(expected):
        born, weights, _ = expected[iteration - iteration % 10]
        net, accuracy = film.network(iteration)
        assert torch.equal(weights_of(net), weights)
        assert accuracy == meters[born]


def test_under_a_stride_a_reset_empties_the_meter_for_one_iteration(bench: TinyBench) -> None:
    """As it does in the published loop where all networks train in every iteration."""
    film = _Film(spec(stride=10, fetch=6, batch=24, generate_every=100), bench)

    empty = [i for i in range(COUNT) if film.network(i)[1] == 0]

    assert empty == list(range(0, COUNT, 20))


def test_a_film_that_begins_between_two_resets_knows_the_last_one(bench: TinyBench) -> None:
    wanted = spec(reset_every=75)
    whole = [_Film(wanted, bench).network(i)[1] for i in (SEGMENT * 2 + 3, SEGMENT + 26)]
    film = _Film(wanted, bench)
    played = [film.network(i)[1] for i in range(COUNT)]

    assert whole == [played[SEGMENT * 2 + 3], played[SEGMENT + 26]]


def made_segments(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """First iterations of the segments that are written from now on."""
    made: list[int] = []
    normal = _distribution.write_segment

    def counted(wanted: QueueSpec, data: RealPixels, first: int, *rest: Path) -> None:
        made.append(first)
        normal(wanted, data, first, *rest)

    monkeypatch.setattr(_distribution, "write_segment", counted)
    return made


def test_recipes_with_other_resets_share_the_queue(tmp_path, monkeypatch) -> None:
    made = made_segments(monkeypatch)
    data = tiny_data(classes=3, per_class=8)
    often, rarely = (
        _Film(spec(reset_every=every), TinyBench(data, folder=tmp_path)) for every in (5, 40)
    )

    meters = [[film.network(i)[1] for i in range(SEGMENT)] for film in (often, rarely)]

    assert made == [0]
    assert meters[0] != meters[1]


def test_the_queue_of_another_version_is_made_anew(tmp_path, monkeypatch) -> None:
    made = made_segments(monkeypatch)
    data = tiny_data(classes=3, per_class=8)
    _Film(spec(), TinyBench(data, folder=tmp_path)).network(0)
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)

    _Film(spec(), TinyBench(data, folder=tmp_path)).network(0)

    assert made == [0, 0]


def test_a_film_can_begin_late_with_nothing_made(tmp_path, monkeypatch) -> None:
    made = []
    monkeypatch.setattr(_distribution, "write_segment", lambda *given: made.append(given[2]))
    film = _Film(spec(), TinyBench(tiny_data(), folder=tmp_path))

    film._folder(20_000)

    assert made == list(range(0, 20_001, SEGMENT))


class Killed(TinyBench):
    """A workbench that dies before it keeps a resource that was built."""

    deaths = 0

    def resource(self, name: str, key: dict[str, object], build: Callable[[Path], None]) -> Path:
        if key["first"] == SEGMENT and not self.deaths:
            self.deaths += 1
            scratch = self.folder / "scratch"
            scratch.mkdir()
            build(scratch)
            shutil.rmtree(scratch)
            raise KeyboardInterrupt
        return super().resource(name, key, build)


def test_a_cut_before_a_segment_is_kept_leaves_the_state_that_it_went_on_from(
    tmp_path, monkeypatch
) -> None:
    bench = Killed(tiny_data(classes=3, per_class=8), folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        _Film(spec(), bench).network(SEGMENT)
    begun = []
    monkeypatch.setattr(Queue, "begin", lambda *given: begun.append(given))

    _Film(spec(), bench).network(SEGMENT)

    assert begun == []


def test_only_the_last_segment_keeps_its_state(tmp_path) -> None:
    film = _Film(spec(), TinyBench(tiny_data(classes=3, per_class=8), folder=tmp_path))

    film.network(2 * SEGMENT)

    kept = [(folder / STATE).exists() for folder in film._folders]
    assert kept == [False, False, True]
