import pytest
from pydantic import ValidationError

from distillhub.relabel.spec import RelabelSpec, ViewSpec, labelling_roles


@pytest.mark.parametrize("wrong", [{"scale": (0.0, 1.0)}, {"scale": (0.8, 0.5)}, {"ratio": (2, 1)}])
def test_ranges_that_do_not_rise_from_above_zero_are_refused(wrong):
    with pytest.raises(ValidationError, match="the first above 0"):
        ViewSpec(**wrong)


@pytest.mark.parametrize("count", [0, -1, 2000])
def test_a_count_of_views_that_cannot_be_is_refused(count):
    with pytest.raises(ValidationError, match="count"):
        RelabelSpec(views=ViewSpec(), count=count)


def test_many_views_need_to_be_described():
    with pytest.raises(ValidationError, match="need a views: block"):
        RelabelSpec(count=10)


@pytest.mark.parametrize("observers", [(), (0, 0), (1, 0, 1)])
def test_observers_are_named_at_most_once(observers):
    with pytest.raises(ValidationError, match="name each at most once, or all"):
        RelabelSpec(by="observers", observers=observers)


def test_observers_are_not_named_where_the_teacher_labels():
    with pytest.raises(ValidationError, match="set by: observers"):
        RelabelSpec(observers=(0,))


def test_all_observers_are_not_written():
    assert "observers" not in RelabelSpec(by="observers").model_dump(mode="json")
    written = RelabelSpec(by="observers", observers=(0, 2)).model_dump(mode="json")
    assert written["observers"] == [0, 2]
    assert RelabelSpec.model_validate(written).observers == (0, 2)


ROLES = ["generator", "observer-10", "observer-2", "observer-0", "teacher"]


@pytest.mark.parametrize(
    ("spec", "roles"),
    [
        (None, ("teacher",)),
        (RelabelSpec(), ("teacher",)),
        (RelabelSpec(by="observers"), ("observer-0", "observer-2", "observer-10")),
        (RelabelSpec(by="observers", observers=(2, 0)), ("observer-2", "observer-0")),
    ],
)
def test_labels_come_from_the_networks_that_are_named(spec, roles):
    assert labelling_roles(spec, ROLES) == roles


def test_without_a_teacher_nothing_labels_by_itself():
    assert labelling_roles(None, ["observer-0"]) == ()
