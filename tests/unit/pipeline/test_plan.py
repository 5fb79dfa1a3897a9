"""What a plan foretells of labels, against hand-worked numbers."""

import pytest

from distillhub.pipeline.plan import bytes_per_view
from distillhub.relabel.spec import RelabelSpec, ViewSpec


def test_a_whole_image_label_of_ten_classes_is_float16_logits():
    assert bytes_per_view(RelabelSpec(), 10) == pytest.approx(0.92 * 20)


def test_views_of_ten_classes_are_uint8_logits_with_range_and_crop():
    assert bytes_per_view(RelabelSpec(views=ViewSpec()), 10) == pytest.approx(0.88 * 14 + 3)


@pytest.mark.parametrize(("top_k", "measured"), [(50, 101), (10, 28)])
def test_top_labels_of_a_thousand_classes_are_near_the_measured_bytes(top_k, measured):
    spec = RelabelSpec(views=ViewSpec(), top_k=top_k)

    assert bytes_per_view(spec, 1000) - 3 == pytest.approx(measured, rel=0.1)
