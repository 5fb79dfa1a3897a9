"""Protocols are fixed: their lengths, rates and sizes are what the published procedures say."""

import itertools
import math

import pytest

from distillhub.evaluation import protocols


@pytest.mark.parametrize(("images", "steps"), [(10, 1001), (256, 1001), (257, 2002), (400, 2002)])
def test_classic_check_07_lowres_takes_1001_epochs_with_the_last_batch_kept(images, steps):
    assert protocols.get("lowres-1").length(images).steps == steps


@pytest.mark.parametrize("images", [100, 400])
def test_classic_check_07_lowres_has_502_epochs_at_the_first_rate_and_499_at_a_tenth(images):
    protocol = protocols.get("lowres-1")
    length = protocol.length(images)

    rates = [protocol.rate(step, length) for step in range(length.steps)]

    per_epoch = math.ceil(images / 256)
    assert rates == [0.01] * 502 * per_epoch + [0.001] * 499 * per_epoch


def test_digits_has_500_steps_whatever_the_number_of_images():
    protocol = protocols.get("digits-1")

    assert protocol.length(10).steps == protocol.length(5000).steps == 500


def test_hard_1_is_what_the_card_page_says():
    p = protocols.get("hard-1")

    assert (p.epochs, p.batch, p.optimizer, p.lr, p.weight_decay) == (300, 128, "adamw", 1e-3, 0.01)
    assert (p.schedule, p.augment, p.regimes) == ("cosine", "rrc_flip", ("hard",))


def test_soft_1_differs_from_hard_1_in_labels_and_their_loss_only():
    hard, soft = protocols.get("hard-1"), protocols.get("soft-1")
    told_apart = {"name", "summary", "source", "regimes", "temperature", "scaled"}

    assert hard.model_dump(exclude=told_apart) == soft.model_dump(exclude=told_apart)
    assert soft.temperature == 20


def test_a_cosine_starts_at_the_rate_and_falls_all_the_way():
    protocol = protocols.get("hard-1")
    length = protocol.length(1280)

    rates = [protocol.rate(step, length) for step in range(length.steps)]

    assert rates[0] == 1e-3
    assert rates[length.steps // 2] == pytest.approx(5e-4)
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert rates[-1] < 1e-9


def test_the_reference_takes_its_size_and_augmentation_from_the_protocol_it_serves():
    full, digits = protocols.get("full-1@digits-1"), protocols.get("digits-1")

    assert (full.size, full.augment, full.students) == (16, digits.augment, digits.students)


@pytest.mark.parametrize(("images", "steps"), [(1297, 20 * 21), (100, 400), (60_000, 20 * 938)])
def test_the_reference_is_as_long_as_the_data_needs(images, steps):
    assert protocols.get("full-1@digits-1").length(images).steps == steps


@pytest.mark.parametrize(("side", "arch"), [(28, "convnet3"), (32, "convnet3"), (64, "convnet4")])
def test_lowres_takes_the_convnet_of_the_side(side, arch):
    assert protocols.get("lowres-1").students_for(side, side) == (arch,)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'lowres-1'"):
        protocols.get("lowres1")


def test_digests_differ_between_protocols_and_not_between_calls():
    every = [*protocols.names(), *(protocols.REFERENCE + name for name in protocols.names())]

    digests = {protocols.get(name).sha256 for name in every}

    assert len(digests) == len(every)
    assert protocols.get("full-1@lowres-1").sha256 in digests


def test_a_protocol_has_either_steps_or_epochs():
    fields = protocols.get("digits-1").model_dump()

    with pytest.raises(ValueError, match="either steps or epochs"):
        protocols.Protocol(**{**fields, "epochs": 3})
