import pytest
import torch
from torchvision.transforms import InterpolationMode, autoaugment

from distillhub.ops import randaugment

SPACE = autoaugment.RandAugment()._augmentation_space(31, (24, 20))
THEIRS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)


def pictures(channels, n=4):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, channels, 6, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (24, 20), mode="bilinear")
    return (smooth * 255).round().to(torch.uint8)


def torchvision_result(image, op, magnitude_bin, negative):
    magnitudes, signed = SPACE[THEIRS[op]]
    magnitude = float(magnitudes[magnitude_bin]) if magnitudes.ndim else 0.0
    if signed and negative:
        magnitude = -magnitude
    return autoaugment._apply_op(image, THEIRS[op], magnitude, InterpolationMode.NEAREST, None)


@pytest.mark.parametrize("op", range(14), ids=randaugment.NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_equals_torchvision(op, channels):
    pixels = pictures(channels)
    bins = [0, 9, 17, 30]
    negative = torch.tensor([False, True, False, True])
    levels = randaugment.level(torch.tensor(bins), negative)
    ops = torch.full((4, 4), randaugment.NONE, dtype=torch.uint8)
    ops[:, 0], ops[:, 1] = op, levels

    ours = (randaugment.apply(pixels.float() / 255, ops) * 255).round().to(torch.uint8)

    for row in range(4):
        theirs = torchvision_result(pixels[row], op, bins[row], bool(negative[row]))
        # a source position may lie exactly between two pixels, where the last bit of a matrix
        # decides
        assert (ours[row] != theirs).float().mean() <= (0.01 if 1 <= op <= 5 else 0.0)


def test_two_operations_follow_each_other():
    pixels = pictures(3, n=1)
    ops = torch.tensor([[6, 39, 11, 39]], dtype=torch.uint8)

    ours = (randaugment.apply(pixels.float() / 255, ops) * 255).round().to(torch.uint8)

    first = torchvision_result(pixels[0], 6, 9, False)
    assert torch.equal(ours[0], torchvision_result(first, 11, 9, False))


def test_a_row_does_not_depend_on_its_batch():
    images = pictures(3).float() / 255
    ops = torch.tensor([[1, 40, 13, 30], [5, 20, 9, 50], [255, 255, 255, 255], [8, 33, 2, 9]])
    ops = ops.to(torch.uint8)

    together = randaugment.apply(images, ops)
    alone = torch.cat([randaugment.apply(images[i : i + 1], ops[i : i + 1]) for i in range(4)])

    assert torch.equal(together, alone)


def test_an_image_without_operation_keeps_its_exact_values():
    images = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    ops = torch.tensor([[255, 255, 255, 255], [12, 30, 255, 255]], dtype=torch.uint8)

    assert torch.equal(randaugment.apply(images, ops)[0], images[0])


def test_an_unknown_operation_is_refused():
    with pytest.raises(ValueError, match="above 13"):
        randaugment.apply(
            torch.zeros(1, 1, 4, 4), torch.tensor([[14, 30, 255, 255]], dtype=torch.uint8)
        )


def test_drawn_operations_are_those_of_torchvisions_defaults():
    drawn = randaugment.draw(7000, generator=torch.Generator().manual_seed(0)).long()

    pairs = drawn.reshape(-1, 2)
    counts = pairs[:, 0].bincount(minlength=14)
    assert drawn.shape == (7000, 4)  # two operations
    assert counts.min() > 850  # of 1000 expected, standard deviation 31
    assert counts.max() < 1150
    for number in range(14):
        levels = pairs[pairs[:, 0] == number, 1].unique().tolist()
        assert levels == ([21, 39] if number in randaugment.SIGNED else [39]), number  # 30 -+ 9


def test_signs_fall_either_way_alike():
    drawn = randaugment.draw(7000, generator=torch.Generator().manual_seed(0)).long()
    pairs = drawn.reshape(-1, 2)
    signed = pairs[(pairs[:, 0] >= 1) & (pairs[:, 0] <= 9), 1]

    assert (signed == 21).double().mean().item() == pytest.approx(0.5, abs=0.03)
