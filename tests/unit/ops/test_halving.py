"""Parts that become smaller when memory runs out."""

import pytest
import torch
from torch import Tensor

from distillhub.ops.halving import Halving, recomputed

ROWS = torch.arange(20.0)


class Device:
    """Has room for `room` rows at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def double(self, part: slice) -> Tensor:
        self.sizes.append(part.stop - part.start)
        if part.stop - part.start > self.room:
            raise torch.OutOfMemoryError("no room")
        return 2 * ROWS[part]


def test_parts_are_halved_until_they_fit_and_stay_small():
    device, parts = Device(room=3), Halving(16)

    done = parts.run(device.double, len(ROWS))

    assert torch.equal(done, 2 * ROWS)
    assert device.sizes == [16, 8, 4, *[2] * 10]
    assert parts.rows == 2


def test_what_fits_is_done_in_one_go():
    device = Device(room=100)

    Halving(100).run(device.double, len(ROWS))

    assert device.sizes == [20]


def test_one_row_that_does_not_fit_ends_it():
    with pytest.raises(torch.OutOfMemoryError):
        Halving(4).run(Device(room=0).double, len(ROWS))


def test_other_errors_are_not_swallowed():
    def broken(part: slice) -> Tensor:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        Halving(4).run(broken, len(ROWS))


def test_what_is_recomputed_has_the_gradient_of_what_is_kept():
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scale = torch.arange(7.0).view(7, 1)

    def work(rows: Tensor, part: slice) -> Tensor:
        return (scale[part] * rows).sin().sum(1)

    made = recomputed(work, x, Halving(3).run)
    (gradient,) = torch.autograd.grad((made * torch.arange(7)).sum(), x)

    kept = work(x, slice(None))
    (expected,) = torch.autograd.grad((kept * torch.arange(7)).sum(), x)
    assert torch.equal(made, kept)
    assert torch.equal(gradient, expected)


def test_the_way_back_halves_its_parts_too():
    sizes: list[int] = []

    def work(rows: Tensor, part: slice) -> Tensor:
        sizes.append(part.stop - part.start)
        if rows.requires_grad and part.stop - part.start > 2:  # a graph takes more room
            raise torch.OutOfMemoryError("no room")
        return 2 * rows

    x = torch.ones(8, requires_grad=True)
    parts = Halving(8)
    (gradient,) = torch.autograd.grad(recomputed(work, x, parts.run).sum(), x)

    assert torch.equal(gradient, torch.full((8,), 2.0))
    assert sizes == [8, 8, 4, 2, 2, 2, 2]
