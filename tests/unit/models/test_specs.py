"""How long a network is trained, and what a spec says of itself."""

import pytest
from pydantic import ValidationError

from distillhub.digests import fingerprint
from distillhub.models.specs import ModelSpec, TrainSpec


def test_a_thousand_steps_where_no_length_is_given():
    spec = TrainSpec(arch="mlp")

    assert (spec.steps, spec.epochs) == (1000, None)
    assert spec.taken_steps(5000) == 1000


def test_epochs_stand_in_place_of_steps():
    spec = TrainSpec(arch="mlp", epochs=50, checkpoint_epoch=41, batch=64)

    assert spec.steps is None
    assert spec.total_steps(50_000) == 50 * 781
    assert spec.taken_steps(50_000) == 41 * 781


@pytest.mark.parametrize(
    ("length", "sentence"),
    [
        ({"steps": 5, "epochs": 5}, "both are given"),
        ({"steps": None}, "both are null"),
        ({"steps": 5, "checkpoint_epoch": 1}, "checkpoint_epoch counts epochs"),
        ({"checkpoint_epoch": 1}, "checkpoint_epoch counts epochs"),
        ({"epochs": 5, "checkpoint_epoch": 6}, "checkpoint_epoch is 6 but there are 5 epochs"),
    ],
)
def test_a_length_that_contradicts_itself_is_refused(length, sentence):
    with pytest.raises(ValidationError, match=sentence):
        TrainSpec(arch="mlp", **length)


@pytest.mark.parametrize("length", [{}, {"steps": 7}, {"epochs": 3}])
def test_a_spec_reads_back_what_it_wrote(length):
    spec = TrainSpec(arch="mlp", **length)

    assert TrainSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_later_fields_that_say_nothing_are_not_written():
    written = TrainSpec(arch="convnet3", steps=600, augment="shift").model_dump(mode="json")

    # The digest of such a spec before there were epochs; networks in model stores stand under it.
    assert (
        fingerprint(written) == "0cbc06008563e830b50c4efbd95715fd120560623206fd6dbeb9fa1c58603acc"
    )
    assert "top1" not in ModelSpec(arch="mlp", weights="default").model_dump(mode="json")


def test_later_fields_that_say_something_are_written():
    written = TrainSpec(arch="mlp", epochs=3, checkpoint_epoch=2).model_dump(mode="json")

    assert (written["epochs"], written["checkpoint_epoch"]) == (3, 2)
    known = ModelSpec(arch="mlp", weights="default", top1=0.9)
    assert known.model_dump(mode="json")["top1"] == 0.9
