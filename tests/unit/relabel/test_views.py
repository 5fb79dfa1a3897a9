import pytest
import torch

from distillhub.relabel.spec import ViewSpec
from distillhub.relabel.views import draw_views, whole_sub_images

ALL = ViewSpec(flip=True, randaugment=True, cutmix=True)


def draw(spec=ALL, images=20, *, count=6, height=16, width=12, seed=0, formation=1):
    return draw_views(
        spec, images, count=count, height=height, width=width, seed=seed, formation=formation
    )


def test_the_first_views_are_the_same_however_many_are_drawn():
    few, many = draw(count=3), draw(count=50).first(3)

    for name in ("crop", "flip", "ops", "partner", "box"):
        assert torch.equal(getattr(few, name), getattr(many, name))


def test_the_crops_of_an_image_do_not_depend_on_the_other_images():
    few, many = draw(images=3), draw(images=1500)

    assert torch.equal(few.crop, many.crop[:3])


def test_leaving_out_flips_operations_and_mixing_changes_no_crop():
    assert torch.equal(draw(ViewSpec()).crop, draw(ALL).crop)


def test_another_seed_gives_other_views():
    assert not torch.equal(draw(seed=0).crop, draw(seed=1).crop)


def test_crops_lie_inside_the_image():
    top, left, tall, wide = draw(images=200).crop.unbind(2)

    assert (tall >= 1).all()
    assert (wide >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + tall <= 16).all()
    assert (left + wide <= 12).all()


def test_crops_cover_the_asked_share_of_the_area():
    spec = ViewSpec(scale=(0.3, 0.6))

    _, _, tall, wide = draw(spec, 500, height=64, width=64).crop.unbind(2)

    share = tall * wide / 64**2
    assert 0.28 < share.min() < 0.32  # half a pixel of each side of 64
    assert 0.58 < share.max() < 0.62
    assert abs(share.mean().item() - 0.45) < 0.01


def test_scale_one_and_ratio_one_show_the_whole_square():
    crop = draw(ViewSpec(scale=(1, 1), ratio=(1, 1)), height=16, width=16).crop

    assert (crop == torch.tensor([0, 0, 16, 16])).all()


def test_a_crop_that_never_fits_is_the_largest_central_one():
    # the whole area with ratio 1 never fits into 10 x 20; then torchvision takes the middle 10 x 10
    crop = draw(ViewSpec(scale=(1, 1), ratio=(1, 1)), height=10, width=20).crop

    assert (crop == torch.tensor([0, 5, 10, 10])).all()


def test_half_of_the_views_are_flipped():
    assert 0.45 < draw(images=500).flip.float().mean() < 0.55
    assert not draw(ViewSpec(flip=False)).flip.any()


def test_the_pasted_share_is_uniform():
    # Beta(1, 1); boxes cut at the border make it smaller, so only whole boxes are looked at
    views = draw(images=2000, height=64, width=64)
    top, left, bottom, right = views.box.unbind(2)
    whole = (top > 0) & (left > 0) & (bottom < 64) & (right < 64) & (bottom > top)

    assert (bottom <= 64).all()
    assert (right <= 64).all()
    assert ((bottom - top)[whole] - (right - left)[whole]).abs().max() == 0
    assert views.partner.min() >= 0
    assert views.partner.max() < 2000
    assert len(views.partner.unique()) > 1900


def test_operations_are_known_and_only_signed_ones_have_a_sign():
    ops = draw(images=300).ops.reshape(-1, 2).long()

    assert set(ops[:, 0].tolist()) == set(range(14))
    assert set(ops[:, 1].tolist()) == {21, 39}  # 30 - 9 and 30 + 9
    unsigned = (ops[:, 0] == 0) | (ops[:, 0] >= 10)
    assert (ops[unsigned, 1] == 39).all()


def test_views_of_a_packed_image_stay_inside_their_sub_image():
    views = draw(images=50, count=4, height=16, width=12, formation=2)

    crop = views.crop.reshape(50, 2, 2, 4, 4)  # image, sub-row, sub-column, view
    top, left, tall, wide = crop.unbind(4)
    for r in range(2):
        for c in range(2):
            assert (top[:, r, c] >= 8 * r).all()
            assert ((top + tall)[:, r, c] <= 8 * r + 8).all()
            assert (left[:, r, c] >= 6 * c).all()
            assert ((left + wide)[:, r, c] <= 6 * c + 6).all()


def test_whole_sub_images_are_the_quarters_of_the_image():
    views = whole_sub_images(3, height=8, width=6, formation=2)

    assert views.crop[1].tolist() == [[0, 0, 4, 3], [0, 3, 4, 3], [4, 0, 4, 3], [4, 3, 4, 3]]
    assert views.size == (8, 6)


@pytest.mark.parametrize("size", [None, 24])
def test_views_have_the_asked_size(size):
    expected = (16, 12) if size is None else (24, 24)

    assert draw(ViewSpec(size=size)).size == expected


def batched(images=23, *, batch=5, count=4, seed=0, formation=1, **fields):
    spec = ViewSpec(flip=True, cutmix=True, batch=batch, **fields)
    return draw(spec, images, count=count, height=64, width=48, seed=seed, formation=formation)


def groups_of(crops):
    """Rows by what they show, for one view."""
    return torch.unique(crops, dim=0, return_inverse=True)[1]


def test_images_of_a_batch_share_crop_flip_and_box():
    views = batched()

    for view in range(4):
        group = groups_of(views.crop[:, view])
        assert sorted(torch.bincount(group).tolist()) == [3, 5, 5, 5, 5]
        for name in ("flip", "box"):
            shown = getattr(views, name)[:, view].reshape(23, -1)
            assert all(len(shown[group == one].unique(dim=0)) == 1 for one in range(5))


def test_images_of_a_batch_swap_partners_among_themselves():
    views = batched()

    for view in range(4):
        group, partner = groups_of(views.crop[:, view]), views.partner[:, view].long()
        assert sorted(partner.tolist()) == list(range(23))  # each is a partner once
        assert torch.equal(group[partner], group)


def test_every_view_has_batches_of_its_own():
    views = batched()

    members = set()
    for view in range(4):
        group = groups_of(views.crop[:, view])
        members.add(tuple((group[:, None] == group).flatten().tolist()))  # who is with whom
    assert len(members) == 4


def test_batches_as_large_as_the_set_give_all_images_the_same_crops():
    assert len(batched(batch=100).crop.unique(dim=0)) == 1


def test_the_first_batched_views_are_the_same_however_many_are_drawn():
    few, many = batched(count=2), batched(count=9).first(2)

    for name in ("crop", "flip", "partner", "box"):
        assert torch.equal(getattr(few, name), getattr(many, name))


def test_batches_cross_the_chunks_in_which_images_are_drawn(monkeypatch):
    whole = batched()
    monkeypatch.setattr("distillhub.relabel.views.CHUNK", 4)

    for name in ("crop", "flip", "partner", "box"):
        assert torch.equal(getattr(batched(), name), getattr(whole, name))


def test_batches_leave_operations_to_the_image():
    alone = draw(ViewSpec(randaugment=True))
    together = draw(ViewSpec(randaugment=True, batch=20))

    assert torch.equal(together.ops, alone.ops)


def test_sub_images_of_a_batch_share_the_crop_within_themselves():
    crop = batched(formation=2).crop.reshape(23, 4, 4, 4)  # 64 x 48: sub-images of 32 x 24

    starts = torch.tensor([[0, 0, 0, 0], [0, 24, 0, 0], [32, 0, 0, 0], [32, 24, 0, 0]])
    within = crop - starts[:, None]
    assert (within == within[:, :1]).all()


def test_unbatched_views_are_written_as_before():
    assert "batch" not in ViewSpec().model_dump()
    assert ViewSpec(batch=10).model_dump()["batch"] == 10
