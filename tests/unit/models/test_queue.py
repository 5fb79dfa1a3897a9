"""IDM's queue: how it fills, what it trains on, and that its parts on disk are one film."""

import pytest
import torch
from torch import Tensor

from distillhub.models import queue as module
from distillhub.models.queue import (
    SEGMENT,
    STATE,
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


def test_idm_check_06_a_meter_counts_percent_since_its_reset() -> None:
    queue = Queue.begin(spec(reset_every=3, fetch=4), real_pixels())
    fresh, running = [], []

    for iteration, _ in queue.iterations(0, 5):
        (fresh if iteration in (0, 3) else running).extend(m.accuracy for m in queue.members)

    assert set(fresh) == {0.0}
    assert max(running) > 1  # percent, not a fraction
    assert all(0 <= value <= 100 for value in running)


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
        (flat(member), member.accuracy)
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
            assert drawn.accuracy == whole[iteration][1]


def test_only_the_last_segment_keeps_the_state(film) -> None:
    _, _, folders, _ = film

    assert [(folder / STATE).exists() for folder in folders] == [False, True]


def test_a_segment_whose_start_was_removed_is_run_from_the_beginning(film, tmp_path) -> None:
    wanted, data, folders, whole = film

    write_segment(wanted, data, SEGMENT, folders[0], tmp_path)

    assert torch.equal(Segment(tmp_path, SEGMENT, 1).drawn(SEGMENT + 9).weights, whole[59][0])


def test_a_stride_holds_one_draw_for_several_iterations(tmp_path) -> None:
    data = real_pixels()
    write_segment(spec(stride=10), data, 0, None, tmp_path)
    segment = Segment(tmp_path, 0, 10)

    drawn = [segment.drawn(iteration) for iteration in (10, 14, 19, 20)]

    assert torch.equal(drawn[0].weights, drawn[2].weights)
    assert drawn[0].accuracy == drawn[1].accuracy
    assert not torch.equal(drawn[2].weights, drawn[3].weights)
    everything = [flat(m) for _, m in Queue.begin(spec(), data).iterations(0, 11)]
    assert torch.equal(drawn[0].weights, everything[10])


def test_put_gives_a_network_its_weights() -> None:
    data = real_pixels()
    net, other = data.network("convnet2-w4", 1), data.network("convnet2-w4", 2)

    module.put(net, torch.nn.utils.parameters_to_vector(other.parameters()))

    assert all(map(torch.equal, net.parameters(), other.parameters()))
