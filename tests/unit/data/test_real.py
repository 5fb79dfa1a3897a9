import pytest
import torch

from distillhub.data.real import RealData


def _ten(holdout: float | None = 0.2) -> RealData:
    """Ten 1 x 2 x 2 images whose every pixel is the row number; labels alternate."""
    rows = torch.arange(10, dtype=torch.uint8)
    pixels = rows[:, None, None, None].expand(10, 1, 2, 2).contiguous()
    return RealData.in_memory(pixels, torch.arange(10) % 2, ["even", "odd"], holdout=holdout)


def test_images_are_the_pixels_divided_by_255() -> None:
    data = RealData.in_memory(
        torch.full((1, 3, 2, 2), 51, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), ["a"]
    )

    assert torch.equal(data.images([0]), torch.full((1, 3, 2, 2), 0.2))


def test_rows_of_a_class_ascend() -> None:
    assert _ten().rows_of(1).tolist() == [1, 3, 5, 7, 9]


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(ValueError, match=r"label 2 is not one of 0 \.\. 1"):
        _ten().rows_of(2)


def test_counts_are_images_per_class() -> None:
    assert _ten().counts == (5, 5)


def test_a_part_of_a_part_leads_back_to_the_whole_split() -> None:
    part = _ten().part(torch.tensor([9, 4, 6])).part(torch.tensor([2, 0]))

    assert part.origin.tolist() == [6, 9]


def test_a_part_shows_the_images_of_its_rows() -> None:
    part = _ten().part(torch.tensor([7, 2]))

    assert part.pixels([0, 1])[:, 0, 0, 0].tolist() == [7, 2]


def test_a_negative_row_is_refused() -> None:
    with pytest.raises(IndexError, match=r"rows -1 \.\. -1 of a set of 10 images"):
        _ten().images([-1])


def test_a_row_beyond_a_part_is_refused() -> None:
    with pytest.raises(IndexError, match="of a set of 2 images"):
        _ten().part(torch.tensor([0, 1])).images([2])


def test_no_rows_give_no_images() -> None:
    assert _ten().images([]).shape == (0, 1, 2, 2)


def test_an_epoch_shows_every_row_once() -> None:
    epoch = _ten().batches(3, torch.Generator().manual_seed(0))

    seen = torch.cat([images for images, _ in epoch]).mul(255).round()[:, 0, 0, 0]
    assert sorted(seen.tolist()) == list(range(10))


def test_labels_of_a_batch_belong_to_its_images() -> None:
    for images, labels in _ten().batches(4, torch.Generator().manual_seed(1)):
        assert torch.equal(images.mul(255).round()[:, 0, 0, 0].long() % 2, labels)


def test_equal_generators_give_equal_epochs() -> None:
    first, second = (
        [labels.tolist() for _, labels in _ten().batches(4, torch.Generator().manual_seed(5))]
        for _ in range(2)
    )

    assert first == second


def test_a_short_last_batch_can_be_left_out() -> None:
    epoch = _ten().batches(4, torch.Generator(), drop_last=True)

    assert [len(labels) for _, labels in epoch] == [4, 4]


def test_fit_and_held_out_share_no_row() -> None:
    data = _ten()

    assert not set(data.fit.origin.tolist()) & set(data.held_out.origin.tolist())


def test_held_out_takes_its_share_of_every_class() -> None:
    assert _ten(0.4).held_out.counts == (2, 2)


def test_a_class_of_one_image_stays_in_fit() -> None:
    pixels = torch.zeros((3, 1, 2, 2), dtype=torch.uint8)
    data = RealData.in_memory(pixels, torch.arange(3), ["a", "b", "c"], holdout=0.9)

    assert (data.fit.counts, len(data.held_out)) == ((1, 1, 1), 0)


def test_a_test_split_has_no_held_out_part() -> None:
    with pytest.raises(ValueError, match="only a whole training split"):
        _ = _ten(None).held_out


def test_images_are_copies() -> None:
    data = _ten()

    data.pixels([3]).zero_()

    assert data.pixels([3]).max() == 3


def test_float_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        RealData.in_memory(torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64), ["a"])
