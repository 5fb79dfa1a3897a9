"""Doping over a workbench in memory: which base, which real images, how many of each class."""

import pytest
import torch

from distillhub.methods._base import Assembly, Student, StudentSpec
from distillhub.methods.doping import Doping
from distillhub.ops.doping import confusion
from tests.fakes import TinyBench, target_of, tiny_data, units_of

STUDENT = {"protocol": "smoke-cpu-1"}


class SizedBench(TinyBench):
    """Bases of 1, 2, 4 images per class whose students find 3, 9 and 10 of the training images."""

    found = {"one": 3, "two": 9, "four": 10}  # noqa: RUF012 - a table
    ipc = {"one": 1, "two": 2, "four": 4}  # noqa: RUF012

    def artifact(self, base: str):
        made = super().artifact(base)
        times = self.ipc[base]
        files = made.source.files(range(len(made))) * times
        source = type(made.source).of(files)
        labels = made.labels.repeat(times)
        return type(made)(source, labels, made.class_names, None, None, {})

    def student(self, spec: StudentSpec, base: str, *, number: int = 0, state=None):
        yield from ()
        everything = self.data.images(range(len(self.data)))
        right = torch.arange(len(self.data)) < self.found[base] + number

        def logits(images):
            same = (images[:, None] == everything[None]).flatten(2).all(dim=2)
            row = same.int().argmax(dim=1)
            shown = torch.nn.functional.one_hot(self.data.labels[row], self.data.num_classes)
            return torch.where(right[row][:, None], shown, shown.roll(1, dims=1)).float()

        return Student(f"{base} {number}", "table", logits)


def put_together(method: Doping, bench: TinyBench, ipc: int) -> Assembly:
    run = method.synthesize(units_of(method, target_of(bench.data, ipc)), bench)
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value


def test_the_most_confused_images_of_all_classes_are_added():
    bench = TinyBench(tiny_data())
    method = Doping.model_validate({"base": "base", "student": STUDENT, "label_source": "true"})

    made = put_together(method, bench, 3)

    images = bench.data.images(range(len(bench.data)))
    student = bench.network("student of base 0")
    score = confusion(student(images).softmax(dim=1), bench.data.labels)
    expected = score.sort(descending=True).indices[:6]
    assert made.rows[made.rows >= 0].tolist() == expected.tolist()
    assert made.labels[3:].tolist() == bench.data.labels[expected].tolist()


def test_the_teacher_says_what_an_image_is_unless_told_otherwise():
    bench = TinyBench(tiny_data())
    method = Doping.model_validate({"base": "base", "student": STUDENT})

    made = put_together(method, bench, 3)

    images = bench.data.images(range(len(bench.data)))
    target = bench.network("teacher")(images).argmax(dim=1)
    student = bench.network("student of base 0")
    score = confusion(student(images).softmax(dim=1), target)
    assert made.rows[3:].tolist() == score.sort(descending=True).indices[:6].tolist()
    found = int((student(images).argmax(dim=1) == target).sum())
    assert made.record["sizes"][0]["recognised"] == found


def test_a_classwise_quota_fills_every_class_up_to_the_same_number():
    bench = TinyBench(tiny_data())
    method = Doping.model_validate({"base": "base", "student": STUDENT, "quota": "classwise"})

    made = put_together(method, bench, 3)

    assert torch.bincount(made.labels).tolist() == [3, 3, 3]
    assert (made.record["kept"], made.record["doped"]) == (3, 6)


def test_base_images_keep_their_bytes():
    bench = TinyBench(tiny_data())
    base = bench.artifact("base")

    made = put_together(Doping.model_validate({"base": "base", "student": STUDENT}), bench, 2)

    assert list(made.files) == base.source.files(range(3))


def test_dsco_check_15_the_total_is_what_was_asked_for_without_duplicates():
    bench = TinyBench(tiny_data())
    method = Doping.model_validate({"base": "base", "student": STUDENT})

    for ipc in (2, 4, 6):
        made = put_together(method, bench, ipc)
        real = made.rows[made.rows >= 0]
        assert len(made) == ipc * 3
        assert len(real.unique()) == len(real) == (ipc - 1) * 3


def test_dsco_check_16_trigger_auto_takes_the_size_after_which_synthesis_stops_paying():
    # M = 3, 6, 12 images; N = 3, 9, 10: gains 2 and 1/6, so the second size is kept.
    bench = SizedBench(tiny_data())
    method = Doping.model_validate(
        {
            "trigger": "auto",
            "schedule": ["one", "two", "four"],
            "averaged": 1,
            "student": STUDENT,
            "label_source": "true",
        }
    )

    record = put_together(method, bench, 5).record

    assert record["base"] == "two"
    assert [size["images"] for size in record["sizes"]] == [3, 6, 12]
    assert [size["recognised"] for size in record["sizes"]] == [3, 9, 10]
    assert [size["gain"] for size in record["sizes"]] == [2, pytest.approx(1 / 6), None]
    assert (record["kept"], record["doped"]) == (6, 9)


def test_recognised_images_are_averaged_over_students():
    bench = SizedBench(tiny_data())
    settings = {"trigger": "auto", "schedule": ["one", "two"], "averaged": 3, "student": STUDENT}
    method = Doping.model_validate({**settings, "label_source": "true"})

    record = put_together(method, bench, 5).record

    # Student i of a size finds i more: 3, 4, 5 and 9, 10, 11.
    assert [size["recognised"] for size in record["sizes"]] == [4, 10]
    assert record["averaged"] == 3


def test_trigger_off_leaves_the_base_as_it_is_and_trains_nobody():
    bench = TinyBench(tiny_data())
    method = Doping.model_validate({"base": "base", "trigger": "off", "student": STUDENT})

    made = put_together(method, bench, 1)

    assert made.rows.tolist() == [-1, -1, -1]
    assert bench.networks == {}
    assert method.students == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs a base"),
        ({"base": "a", "schedule": ["b"]}, "no schedule"),
        ({"trigger": "auto", "schedule": ["a"]}, "at least two"),
        ({"trigger": "auto", "base": "a", "schedule": ["b", "c"]}, "no base"),
    ],
)
def test_base_and_schedule_must_fit_the_trigger(settings, message):
    with pytest.raises(ValueError, match=message):
        Doping.model_validate({"student": STUDENT, **settings})


@pytest.mark.parametrize(
    ("settings", "ipcs", "sentence"),
    [
        ({"base": "a"}, {"a": 5}, "nothing to dope"),
        ({"base": "a", "trigger": "off"}, {"a": 4}, "has 4 images per class, not 5"),
        ({"trigger": "auto", "schedule": ["a", "b"]}, {"a": 3, "b": 3}, "3, 3, do not rise"),
    ],
)
def test_bases_of_the_wrong_size_are_told(settings, ipcs, sentence):
    method = Doping.model_validate({"student": STUDENT, **settings})

    told = list(method.check_bases(target_of(tiny_data(), 5), ipcs))

    assert sentence in " ".join(told)


def test_bases_with_room_are_fine():
    method = Doping.model_validate({"student": STUDENT, "trigger": "auto", "schedule": ["a", "b"]})

    assert list(method.check_bases(target_of(tiny_data(), 5), {"a": 1, "b": 4})) == []
