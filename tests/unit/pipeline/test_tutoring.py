"""Students of a base: resumable, kept, and told apart by what they were trained on."""

import pytest
import torch

from distillhub.errors import DataError
from distillhub.methods._base import StudentSpec
from distillhub.pipeline.tutoring import KEY, train_student
from distillhub.records.distilled import DistilledSet
from distillhub.records.images import EncodedImages
from tests.fakes import TinyBench, stored, tiny_data

SPEC = StudentSpec(protocol="smoke-cpu-1", arch="convnet2-w4")


def a_base(bench: TinyBench) -> DistilledSet:
    made = bench.artifact("base")
    files = made.source.files(range(3)) * 8
    source = EncodedImages.of(files)
    return DistilledSet(source, made.labels.repeat(8), made.class_names, None, None, {})


def training(folder, *, spec=SPEC, digest="a" * 64, number=0, state=None, teacher=False):
    bench = TinyBench(tiny_data())
    return train_student(
        spec,
        a_base(bench),
        digest,
        number=number,
        data=bench.data,
        teacher=bench.network("teacher") if teacher else None,
        teacher_sha256="b" * 64 if teacher else None,
        resources=folder,
        device=torch.device("cpu"),
        state=state,
    )


def finish(run):
    reports = []
    while True:
        try:
            reports.append(next(run))
        except StopIteration as end:
            return end.value, reports


def test_a_student_goes_on_from_a_snapshot_to_the_same_weights(tmp_path):
    whole, reports = finish(training(tmp_path / "whole"))
    run = training(tmp_path / "cut")
    state = stored(next(run).snapshot())
    run.close()

    resumed, rest = finish(training(tmp_path / "cut", state=state))

    assert resumed.identity == whole.identity
    assert len(reports) == 2
    assert rest[0].done > state["step"]


def test_a_snapshot_of_another_student_is_left_alone(tmp_path):
    run = training(tmp_path / "cut", number=1)
    state = stored(next(run).snapshot())
    run.close()

    first, reports = finish(training(tmp_path / "cut", state=state))

    assert state[KEY] != stored(reports[0].snapshot())[KEY]
    assert first.identity == finish(training(tmp_path / "fresh"))[0].identity


def test_a_finished_student_is_not_trained_again(tmp_path):
    first, _ = finish(training(tmp_path))

    again, reports = finish(training(tmp_path))

    assert reports == []
    assert again.identity == first.identity
    images = tiny_data().images(range(4))
    assert torch.equal(again.logits(images), first.logits(images))


@pytest.mark.parametrize(
    "other",
    [{"digest": "c" * 64}, {"number": 1}, {"spec": SPEC.model_copy(update={"seed": 1})}],
)
def test_another_base_number_or_seed_is_another_student(tmp_path, other):
    finish(training(tmp_path))

    assert finish(training(tmp_path, **other))[1] != []


def test_a_protocol_with_labels_made_online_asks_the_teacher(tmp_path):
    spec = StudentSpec(protocol="dsco-soft-1", arch="convnet2-w4")

    with pytest.raises(DataError, match="trains with soft_online labels"):
        next(training(tmp_path, spec=spec))
