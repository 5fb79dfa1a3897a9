"""Figures are written without a signed zero."""

import pytest

from distillhub.records.table import points


@pytest.mark.parametrize(("value", "text"), [(-0.0001, "0.0"), (0.0, "0.0"), (0.053, "+5.3")])
def test_there_is_no_signed_zero(value, text):
    assert points(value, signed=True) == text
