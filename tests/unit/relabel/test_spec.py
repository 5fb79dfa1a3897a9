import pytest
from pydantic import ValidationError

from distillhub.relabel.spec import RelabelSpec, ViewSpec


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
