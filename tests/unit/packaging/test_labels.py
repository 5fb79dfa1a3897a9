"""What stored labels and views must satisfy."""

import numpy as np
import pytest

from distillhub.packaging.labels import (
    Columns,
    agreement,
    findings,
    shape_of,
    statistics,
    view_size,
)


def columns() -> Columns:
    """Two images of 8 x 8 pixels, two views, the two highest of three classes."""
    return {
        "view_crop": np.array([[0, 0, 8, 8, 2, 2, 6, 6]] * 2, dtype=np.uint16),
        "view_flip": np.array([[False, True]] * 2),
        "mix_partner": np.array([[1, 1], [0, 0]], dtype=np.int32),
        "mix_box": np.array([[0, 0, 0, 0, 1, 1, 4, 4]] * 2, dtype=np.uint16),
        "soft_idx": np.array([[0, 2, 1, 0], [1, 2, 1, 0]], dtype=np.uint16),
        "soft_val": np.array([[3, 1, 2, 2], [4, 0, 5, -1]], dtype=np.float16),
        "soft_rest": np.array([[-1, 0, -2, 0.5]] * 2, dtype=np.float16),
    }


def found(changed: Columns) -> list[tuple[str, list[int], str]]:
    made = findings({**columns(), **changed}, num_classes=3, image=(8, 8), view=(6, 6))
    return [(part.column, part.rows.tolist(), part.what) for part in made]


def with_cell(name: str, row: int, place: int, value: float) -> Columns:
    array = columns()[name].copy()
    array[row, place] = value
    return {name: array}


def test_possible_labels_give_no_finding():
    assert found({}) == []


@pytest.mark.parametrize(
    ("name", "place", "value", "what"),
    [
        ("soft_val", 0, np.nan, "NaN or Infinity"),
        ("soft_val", 0, np.inf, "NaN or Infinity"),
        ("soft_rest", 1, np.nan, "NaN or Infinity"),
        ("soft_rest", 1, -1, "negative spread"),
        ("soft_idx", 0, 3, "class beyond 2"),
        ("soft_idx", 0, 2, "class twice"),
        ("soft_val", 1, 7, "not highest first"),
        ("view_crop", 2, 9, "leaves the image of 8 x 8"),
        ("view_crop", 5, 3, "leaves the image of 8 x 8"),
        ("view_crop", 3, 0, "is empty"),
        ("mix_box", 6, 7, "leaves the view of 6 x 6"),
        ("mix_box", 4, 5, "ends before it starts"),
        ("mix_partner", 1, 2, "no row below 2"),
        ("mix_partner", 1, -1, "no row below 2"),
    ],
)
def test_an_impossible_number_is_found_in_its_row_and_column(name, place, value, what):
    made = found(with_cell(name, 1, place, value))

    assert [(column, rows) for column, rows, text in made if what in text] == [(name, [1])]


def test_a_range_that_starts_above_its_end_is_found():
    steps: Columns = {
        "soft_val": np.zeros((2, 6), dtype=np.uint8),
        "soft_range": np.array([[0, 1, 0, 1], [0, 1, 2, 1]], dtype=np.float16),
    }

    made = findings(steps, num_classes=3, image=(8, 8), view=(8, 8))

    assert [(part.column, part.rows.tolist()) for part in made] == [("soft_range", [1])]


def test_columns_that_disagree_on_the_views_are_refused():
    changed = {**columns(), "view_flip": np.zeros((2, 3), dtype=bool)}

    with pytest.raises(ValueError, match="disagree on the views"):
        shape_of(changed)


def test_values_for_other_than_all_classes_need_their_numbers():
    with pytest.raises(ValueError, match="no soft_idx"):
        list(findings({"soft_val": np.zeros((2, 4))}, num_classes=3, image=(8, 8), view=(8, 8)))


def test_one_view_is_known_by_the_values_alone():
    assert shape_of({"soft_val": np.zeros((5, 10))}) == (1, 10)


def test_agreement_counts_views_whose_best_class_is_the_label():
    # views say 0, 1 | 1, 1
    assert agreement(columns(), np.array([0, 1])) == 3 / 4


def test_agreement_without_class_numbers_takes_the_place_of_the_highest():
    values = {"soft_val": np.array([[1, 5, 2], [9, 0, 0]], dtype=np.uint8)}

    assert agreement(values, np.array([1, 2])) == 1 / 2


def test_mean_logit_of_steps_is_that_of_the_decoded_values():
    steps: Columns = {
        "soft_val": np.array([[0, 255, 51]], dtype=np.uint8),
        "soft_range": np.array([[-1, 4]], dtype=np.float16),
    }

    assert statistics(steps)["mean_logit"] == pytest.approx((-1 + 4 + 0) / 3, abs=1e-12)


def test_a_changed_number_moves_a_statistic():
    assert statistics({**columns(), **with_cell("view_crop", 0, 1, 1)}) != statistics(columns())


def test_views_have_the_size_of_the_image_where_nothing_is_said():
    assert view_size({"distillhub": {"views": {"count": 3}}}, (8, 9)) == (8, 9)


def test_views_have_the_size_that_the_front_matter_says():
    assert view_size({"distillhub": {"views": {"size": [4, 5]}}}, (8, 9)) == (4, 5)
