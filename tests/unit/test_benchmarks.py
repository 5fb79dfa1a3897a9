"""Benchmarks, where a fault would go unseen until the next long measurement."""

from benchmarks import matching_queue
from distillhub.models import queue
from distillhub.models.queue import QueueSpec
from tests.fakes import tiny_data


def test_the_published_queue_has_as_many_iterations_as_are_measured(monkeypatch) -> None:
    monkeypatch.setattr(queue, "SEGMENT", 3)
    spec = QueueSpec(arch="convnet2-w4", batch=6, generate_every=5)

    orders = matching_queue._orders(spec, tiny_data(classes=10, per_class=2), 7)

    assert [len(members) for _, _, members in orders] == [4] * 5 + [5] * 2
