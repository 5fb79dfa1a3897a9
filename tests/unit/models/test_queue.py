"""IDM's queue: how it fills, what it trains on, and that its parts on disk are one film."""

import shutil

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from distillhub.models import queue as module
from distillhub.models.queue import (
    SEGMENT,
    STATE,
    Meter,
    Queue,
    QueueSpec,
    RealPixels,
    Segment,
    write_segment,
)
from tests.fakes import tiny_data


def real_pixels() -> RealPixels:
    data = tiny_data(classes=3, per_class=8)
    rows = torch.arange(len(data))
    return RealPixels(data.pixels(rows), data.labels, data.num_classes, data.mean, data.std)


def spec(**settings: object) -> QueueSpec:
    quick = {"arch": "convnet2-w4", "batch": 6, "train_steps": 1}
    return QueueSpec.model_validate(quick | settings)


def flat(member: module.Member) -> Tensor:
    return torch.nn.utils.parameters_to_vector(member.net.parameters()).detach().clone()


def test_idm_check_05_the_length_follows_the_formula() -> None:
    wanted = spec(generate_every=4, capacity=7, train_steps=0)
    queue = Queue.begin(wanted, real_pixels())

    lengths = [len(queue.members) for _ in queue.iterations(0, 24)]

    assert lengths == [min(4 + iteration // 4, 7) for iteration in range(24)]


def test_idm_check_05_the_oldest_network_leaves_first() -> None:
    queue = Queue.begin(spec(generate_every=1, capacity=4, train_steps=0), real_pixels())

    ages = [[member.born for member in queue.members] for _ in queue.iterations(0, 4)]

    assert ages == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]


def test_idm_check_05_an_iteration_trains_fetch_times_steps() -> None:
    queue = Queue.begin(spec(fetch=2, train_steps=3), real_pixels())

    for _ in queue.iterations(0, 5):
        pass

    assert sum(member.steps for member in queue.members) == 5 * 2 * 3


def test_idm_check_05_batches_are_different_real_images(monkeypatch) -> None:
    data, seen = real_pixels(), []
    normal = module.normalize

    def watched(images: Tensor, mean: object, std: object) -> Tensor:
        seen.append((images * 255).round().to(torch.uint8))
        return normal(images, mean, std)

    monkeypatch.setattr(module, "normalize", watched)
    for _ in Queue.begin(spec(), data).iterations(0, 3):
        pass

    real = {image.numpy().tobytes() for image in data.pixels}
    for batch in seen:
        keys = [image.numpy().tobytes() for image in batch]
        assert len(set(keys)) == 6
        assert set(keys) <= real


def test_idm_check_06_a_meter_counts_percent_and_is_zero_without_training() -> None:
    queue = Queue.begin(spec(fetch=4), real_pixels())
    found = [
        [m.meter.percent_since(Meter()) for m in queue.members] for _ in queue.iterations(0, 5)
    ]

    assert set(found[0]) == {0.0}
    assert max(found[-1]) > 1  # percent, not a fraction
    assert all(0 <= value <= 100 for row in found for value in row)
    assert Meter(5, 20).percent_since(Meter(2, 8)) == 25
    assert Meter(5, 20).percent_since(Meter(5, 20)) == 0


def test_a_network_is_drawn_as_it_was_before_its_iteration_trains() -> None:
    queue = Queue.begin(spec(fetch=4), real_pixels())
    drawn = {iteration: (m.born, flat(m)) for iteration, m in queue.iterations(0, 1)}

    after = {member.born: flat(member) for member in queue.members}

    born, before = drawn[0]
    assert not torch.equal(before, after[born])


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Two segments on disk and the run that they were cut from."""
    wanted, data = spec(generate_every=7, capacity=6, reset_every=20), real_pixels()
    folders = [tmp_path_factory.mktemp(f"segment{i}") for i in range(2)]
    write_segment(wanted, data, 0, None, folders[0])
    write_segment(wanted, data, SEGMENT, folders[0], folders[1])
    whole = [
        (flat(member), member.born, member.meter)
        for _, member in Queue.begin(wanted, data).iterations(0, 2 * SEGMENT)
    ]
    return wanted, data, folders, whole


def test_segments_play_what_an_uncut_run_draws(film) -> None:
    _, _, folders, whole = film

    for place, folder in enumerate(folders):
        segment = Segment(folder, place * SEGMENT, 1)
        for iteration in range(place * SEGMENT, (place + 1) * SEGMENT):
            drawn = segment.drawn(iteration)
            assert torch.equal(drawn.weights, whole[iteration][0])
            assert drawn.born == whole[iteration][1]
            assert segment.meters(iteration)[drawn.born] == whole[iteration][2]


def test_a_segment_whose_start_was_removed_is_run_from_the_beginning(film, tmp_path) -> None:
    wanted, data, folders, whole = film
    emptied, again = tmp_path / "emptied", tmp_path / "again"
    shutil.copytree(folders[0], emptied, ignore=shutil.ignore_patterns(STATE))
    again.mkdir()

    write_segment(wanted, data, SEGMENT, emptied, again)

    assert torch.equal(Segment(again, SEGMENT, 1).drawn(SEGMENT + 9).weights, whole[59][0])


def test_a_stride_holds_one_draw_for_several_iterations(tmp_path) -> None:
    data = real_pixels()
    write_segment(spec(stride=10), data, 0, None, tmp_path)
    segment = Segment(tmp_path, 0, 10)

    drawn = [segment.drawn(iteration) for iteration in (10, 14, 19, 20)]

    assert torch.equal(drawn[0].weights, drawn[2].weights)
    assert drawn[0].born == drawn[1].born
    assert not torch.equal(drawn[2].weights, drawn[3].weights)
    everything = [flat(m) for _, m in Queue.begin(spec(), data).iterations(0, 11)]
    assert torch.equal(drawn[0].weights, everything[10])


def test_the_meter_of_a_network_that_left_the_queue_is_that_of_its_last_training(tmp_path) -> None:
    wanted, data = spec(stride=50, generate_every=10, capacity=3, fetch=3), real_pixels()
    write_segment(wanted, data, 0, None, tmp_path)
    segment = Segment(tmp_path, 0, 50)
    born = segment.drawn(0).born
    left = 10 * born  # iteration 10 n drives out network n; iteration 0 network 0

    meters = [segment.meters(iteration)[born] for iteration in range(50)]

    assert born > 0
    assert meters[left].seen == left * 6  # it trained in every iteration before
    assert meters[left:] == [meters[left]] * (50 - left)


def test_a_queue_cannot_start_with_more_than_its_capacity() -> None:
    with pytest.raises(ValidationError, match="start is 5 but capacity is 4; raise capacity"):
        spec(start=5, capacity=4)

    assert spec(start=4, capacity=4).start == 4


def test_put_gives_a_network_its_weights() -> None:
    data = real_pixels()
    net, other = data.network("convnet2-w4", 1), data.network("convnet2-w4", 2)

    module.put(net, torch.nn.utils.parameters_to_vector(other.parameters()))

    assert all(map(torch.equal, net.parameters(), other.parameters()))
