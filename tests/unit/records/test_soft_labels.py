import math

import pytest
import torch

from distillhub.records.soft_labels import SoftLabels, codec_error
from tests import fake_sets


def everything(labels, temperature=None):
    """Decoded logits [N, E, C]."""
    n, entries = len(labels), labels.entries
    rows = torch.arange(n).repeat_interleave(entries)
    cols = torch.arange(entries).repeat(n)
    return labels.logits(rows, cols, temperature).reshape(n, entries, -1)


def test_float16_is_exact_to_half_a_unit_in_the_last_place():
    true = fake_sets.logits(20, 3, 10)

    decoded = everything(SoftLabels.encode(true, codec="float16"))

    assert ((decoded - true).abs() <= true.abs() * 2**-11 + 2**-25).all()


@pytest.mark.parametrize("top_k", [None, 4])
def test_uint8_is_exact_to_half_a_step(top_k):
    true = fake_sets.logits(50, 2, 10)

    stored = SoftLabels.encode(true, codec="uint8", top_k=top_k)
    decoded = everything(stored)

    low, high = stored.range.double().unbind(2)
    bound = ((high - low) / 510).unsqueeze(2)
    kept = torch.zeros_like(true, dtype=torch.bool)
    kept.scatter_(2, true.topk(top_k or 10, dim=2).indices, True)
    error = (decoded.double() - true.double()).abs()
    assert (error <= bound * (1 + 1e-5))[kept].all()  # 1e-5: decoding is in float32


def test_uint8_range_holds_every_logit():
    true = fake_sets.logits(50, 2, 10) * 7.3

    low, high = SoftLabels.encode(true, codec="uint8").range.float().unbind(2)

    assert (low <= true.amin(2)).all()
    assert (high >= true.amax(2)).all()


@pytest.mark.parametrize("codec", ["float16", "uint8"])
def test_equal_logits_come_back_equal(codec):
    true = torch.full((1, 1, 5), 1.5)

    assert torch.equal(everything(SoftLabels.encode(true, codec=codec)), true)


@pytest.mark.parametrize("codec", ["float16", "uint8"])
@pytest.mark.parametrize("temperature", [None, 0.5, 1.0, 4.0, 20.0])
def test_top_k_keeps_the_argmax(codec, temperature):
    true = fake_sets.logits(200, 1, 30)

    stored = SoftLabels.encode(true, codec=codec, top_k=3)

    assert torch.equal(stored.classes[..., 0].long(), true.argmax(2))
    decoded = everything(stored, temperature)
    best = decoded.gather(2, true.argmax(2, keepdim=True)).squeeze(2)
    assert torch.equal(best, decoded.amax(2))


@pytest.mark.parametrize("codec", ["float16", "uint8"])
def test_keeping_every_class_equals_the_full_codec(codec):
    true = fake_sets.logits(5, 2, 6)

    full = SoftLabels.encode(true, codec=codec)
    all_kept = SoftLabels.encode(true, codec=codec, top_k=6)

    assert all_kept.classes is None
    assert torch.equal(all_kept.values, full.values)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_residual_mass_is_exact_when_the_dropped_logits_are_equal(temperature):
    true = torch.full((1, 1, 10), -2.0)
    true[0, 0, :3] = torch.tensor([5.0, 3.5, 1.0])

    decoded = everything(SoftLabels.encode(true, codec="float16", top_k=3), temperature)

    torch.testing.assert_close(
        (decoded / temperature).softmax(2), (true / temperature).softmax(2), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize(
    ("std", "temperature", "each"), [(2.0, 4.0, True), (2.0, 20.0, True), (0.5, 1.0, True)]
)
def test_residual_mass_of_a_gaussian_tail_is_within_five_percent(std, temperature, each):
    tail = torch.randn(20, 1, 990, generator=fake_sets.generator()) * std
    head = torch.full((20, 1, 10), 4.5 * std)
    true = torch.cat([head, tail], dim=2)

    decoded = everything(SoftLabels.encode(true, codec="float16", top_k=10), temperature)

    stored_mass = (decoded[..., 10:] / temperature).exp().sum(2)
    true_mass = (tail / temperature).exp().sum(2)
    assert ((stored_mass / true_mass - 1).abs() < 0.05).all()


def test_dropped_classes_get_their_mean_without_a_temperature():
    true = torch.tensor([[[8.0, 3.0, 1.0, -1.0]]])

    decoded = everything(SoftLabels.encode(true, codec="float16", top_k=2))

    assert decoded.flatten().tolist() == [8.0, 3.0, 0.0, 0.0]


def test_fill_follows_the_formula():
    true = torch.tensor([[[8.0, 3.0, 1.0, -1.0]]])  # dropped: mean 0, std 1

    decoded = everything(SoftLabels.encode(true, codec="float16", top_k=2), 4.0)

    assert decoded.flatten().tolist() == [8.0, 3.0, 0.125, 0.125]


def test_fill_never_exceeds_the_lowest_stored_logit():
    true = torch.tensor([[[2.0, 1.5, 1.0, -5.0]]])  # dropped: mean -2, std 3, fill at T=1: 2.5

    decoded = everything(SoftLabels.encode(true, codec="float16", top_k=2), 1.0)

    assert decoded.flatten().tolist() == [2.0, 1.5, 1.5, 1.5]


def test_decoding_does_not_depend_on_the_batch():
    stored = fake_sets.soft_labels(9, 3, 8, codec="uint8", top_k=3)
    whole = everything(stored, 4.0)

    for row, entry in [(0, 2), (4, 0), (8, 1)]:
        alone = stored.logits(torch.tensor([row]), torch.tensor([entry]), 4.0)
        assert torch.equal(alone[0], whole[row, entry])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 70000.0])
def test_logits_that_cannot_be_stored_are_refused(bad):
    with pytest.raises(ValueError, match="not finite, or beyond"):
        SoftLabels.encode(torch.tensor([[[0.0, bad]]]), codec="float16")


def test_arrays_that_do_not_fit_are_refused():
    stored = fake_sets.soft_labels(3, 2, 8, top_k=3)

    with pytest.raises(ValueError, match="rest is torch"):
        SoftLabels(stored.values, stored.classes, None, stored.rest[:2], 8)
    with pytest.raises(ValueError, match="go together"):
        SoftLabels(stored.values, stored.classes, None, None, 8)
    with pytest.raises(ValueError, match="3 values per label for 8 classes"):
        SoftLabels(stored.values, None, None, None, 8)


def test_codec_error_is_the_divergence_worked_by_hand():
    true = torch.tensor([[[math.log(3.0), 0.0]]])  # p = (3/4, 1/4)
    stored = SoftLabels(torch.zeros(1, 1, 2).half(), None, None, None, 2)  # q = (1/2, 1/2)

    error = codec_error(true, stored)

    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert error.kl_1.item() == pytest.approx(expected, abs=1e-6)
    assert error.mse.item() == pytest.approx(math.log(3.0) ** 2 / 2, rel=1e-6)
    warm = 3 ** (1 / 20) / (1 + 3 ** (1 / 20))  # p at temperature 20
    entropy = -warm * math.log(warm) - (1 - warm) * math.log(1 - warm)
    assert error.kl_20.item() == pytest.approx(math.log(2.0) - entropy, abs=1e-7)
    assert error.agree.item() is True  # a tie keeps the argmax


def test_full_codecs_lose_next_to_nothing():
    # ten times what was measured on logits like these when the format was chosen
    tail = torch.randn(200, 1, 1000, generator=fake_sets.generator()) * 1.8
    tail[:, 0, 0] += 8

    for codec, bound in (("float16", 3e-6), ("uint8", 5e-4)):
        error = codec_error(tail, SoftLabels.encode(tail, codec=codec))
        assert error.kl_1.mean() < bound


def test_views_keep_their_first_views_of_every_sub_image():
    geometry = fake_sets.views(2, 6)
    packed = type(geometry)(
        geometry.crop.repeat(1, 4, 1), geometry.flip.repeat(1, 4), None, None, None, (6, 5), 2
    )

    first = packed.first(2)

    assert first.entries == 8
    assert torch.equal(first.crop, packed.crop[:, [0, 1, 6, 7, 12, 13, 18, 19]])
