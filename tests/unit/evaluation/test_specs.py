"""An entry of `evaluate:` is checked before anything runs."""

import pytest
from pydantic import ValidationError

from distillhub.evaluation.specs import EvalSpec


def test_a_protocol_alone_is_enough():
    spec = EvalSpec(protocol="digits-1")

    assert (spec.students, spec.arms, spec.runs) == ((), "auto", None)


def test_an_unknown_protocol_is_told_the_nearest():
    with pytest.raises(ValidationError, match="did you mean 'digits-1'"):
        EvalSpec(protocol="digit-1")


def test_the_reference_protocol_is_not_chosen():
    with pytest.raises(ValidationError, match="arm full_hard"):
        EvalSpec(protocol="full-1@digits-1")


def test_a_published_percentage_is_refused_with_the_fraction():
    with pytest.raises(ValidationError, match=r"a fraction is meant: 0\.44"):
        EvalSpec(protocol="lowres-1", expect={"convnet3": {"top1": 44, "source": "Table 1"}})


def test_soft_arms_need_a_protocol_with_soft_labels():
    with pytest.raises(ValidationError, match="protocol hard-1 has no soft_stored arms"):
        EvalSpec(protocol="hard-1", arms=("syn_hard", "syn_soft"))


@pytest.mark.parametrize("arms", [(), ("syn_hard", "syn_hard"), ("syn_firm",)])
def test_arms_are_named_once_and_known(arms):
    with pytest.raises(ValidationError):
        EvalSpec(protocol="digits-1", arms=arms)


def test_online_arms_need_a_protocol_that_has_them():
    with pytest.raises(ValidationError, match="protocol digits-1 has no soft_online arms"):
        EvalSpec(protocol="digits-1", arms=("syn_soft_online",))


def test_a_published_figure_is_for_labels_that_the_protocol_has():
    theirs = {"convnet6": {"top1": 0.9, "source": "Table 3", "regime": "soft_online"}}

    with pytest.raises(ValidationError, match=r"expect\.convnet6 is for soft_online labels"):
        EvalSpec(protocol="dsco-hard-1", expect=theirs)
