"""The fields of SRe2L, G-VBSM and EDC: defaults, what is refused, and EDC's configurations."""

import re
from collections.abc import Mapping

import pytest

from distillhub.methods._recover import Recover
from distillhub.methods.edc import CONFIGURATIONS, EDC
from distillhub.methods.gvbsm import GVBSM
from distillhub.methods.sre2l import SRe2L
from distillhub.units import Target
from tests.fakes import target_of, tiny_data

DIGITS = Target(10, 10, 1, 8, 8)
COUNTS = [100] * 10


def refusals(
    method: Recover, target: Target = DIGITS, archs: tuple[str, ...] = ("convnet2-w8-bn",)
) -> list[str]:
    return [
        *method.check(target, COUNTS[: target.num_classes]),
        *method.check_observers(target, archs),
    ]


def configuration(letter: str) -> EDC:
    return EDC.model_validate(CONFIGURATIONS[letter])


def switches(method: EDC) -> dict[str, object]:
    """What the table of configurations tells apart, of the synthesis."""
    return {
        "init": method.init.kind,
        "iterations": method.iterations,
        "alpha": method.match.alpha,
        "densify": method.losses.densify.weight,
        "flatness": method.losses.flatness.weight,
        "crop": method.augment.crop,
        "roll": method.augment.roll,
    }


def test_the_configurations_are_those_of_the_table() -> None:
    columns = ("init", "iterations", "alpha", "densify", "flatness", "crop", "roll")
    table = {
        "A": ("noise", 4000, 1.0, 1.0, 0.0, (0.08, 1.0), 32),
        "B": ("real", 2000, 1.0, 1.0, 0.0, (0.08, 1.0), 0),
        "C": ("real", 2000, 1.0, 1.0, 0.0, (0.08, 1.0), 0),
        "D": ("real", 2000, 1.0, 1.0, 0.25, (0.08, 1.0), 0),
        "E": ("real", 2000, 1.0, 0.0, 0.25, (0.08, 1.0), 0),
        "F": ("real", 2000, 0.5, 0.0, 0.25, (0.08, 1.0), 0),
        "G": ("real", 2000, 0.5, 0.0, 0.25, (0.5, 1.0), 0),
    }

    found = {letter: switches(configuration(letter)) for letter in CONFIGURATIONS}

    assert found == {k: dict(zip(columns, row, strict=True)) for k, row in table.items()}


def test_g_is_edc_and_a_is_gvbsm_but_for_its_dropped_convolutions() -> None:
    baseline = configuration("A").model_dump(exclude={"name"})
    gvbsm = GVBSM(match={"drop_rate": 0.0}).model_dump(exclude={"name"})  # type: ignore[arg-type]

    assert configuration("G") == EDC()
    assert baseline == gvbsm


def test_a_configuration_with_changes_of_its_own_is_a_method() -> None:
    content: Mapping[str, object] = {**CONFIGURATIONS["D"], "iterations": 75, "lr": 0.1}

    method = EDC.model_validate(content)

    assert (method.iterations, method.lr, method.match.alpha) == (75, 0.1, 1.0)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (EDC, ("all", 2000, 0.05, "class_major", "real", True, 0.5, 0.8, 0.0, 0.25, 0)),
        (GVBSM, ("all", 4000, 0.05, "class_major", "noise", True, 1.0, 0.8, 1.0, 0.0, 32)),
        (SRe2L, ((0,), 4000, 0.25, "interleaved", "noise", False, 1.0, 0.0, 0.0, 0.0, 32)),
    ],
)
def test_the_defaults_are_those_of_the_papers(
    method: type[Recover], expected: tuple[object, ...]
) -> None:
    made = method.model_validate({})

    found = (
        made.observers,
        made.iterations,
        made.lr,
        made.batch.order,
        made.init.kind,
        made.taps.conv,
        made.match.alpha,
        made.match.momentum,
        made.losses.densify.weight,
        made.losses.flatness.weight,
        made.augment.roll,
    )
    assert found == expected
    assert (made.losses.ce, made.losses.stat, made.match.first_multiplier) == (1.0, 0.01, 10.0)


def test_a_block_written_in_part_keeps_the_other_defaults_of_its_method() -> None:
    method = GVBSM.model_validate(
        {"match": {"momentum": 0.4}, "losses": {"flatness": {"tau": 2.0}, "stat": 0.1}}
    )

    assert (method.match.alpha, method.match.drop_rate, method.match.momentum) == (1.0, 0.4, 0.4)
    assert (method.losses.densify.weight, method.losses.stat) == (1.0, 0.1)
    assert (method.losses.flatness.weight, method.losses.flatness.tau) == (0.0, 2.0)


def test_a_method_written_out_is_read_back_as_it_is() -> None:
    for method in (EDC(), GVBSM(), SRe2L(augment={"curriculum": {"milestone": 0.5}})):  # type: ignore[arg-type]
        assert type(method).model_validate(method.model_dump(mode="json")) == method


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"match": {"alpha": 50}}, "looks like a percentage"),
        ({"match": {"momentum": 1.0}}, "less than 1"),
        ({"augment": {"crop": [0.5, 0.2]}}, "the first above 0, the second not below"),
        ({"augment": {"crop": [0, 1]}}, "the first above 0"),
        ({"augment": {"crop": [0.5, 0.9], "curriculum": {}}}, "must end at 1.0"),
        ({"augment": {"crop": None, "curriculum": {}}}, "must end at 1.0"),
        ({"observers": []}, "name each once, at least one"),
        ({"observers": [0, 0]}, "name each once"),
        ({"losses": {"ce": 0, "stat": 0}}, "every weight is 0"),
        ({"losses": {"tvv": 1}}, "Extra inputs"),
        ({"batch": {"size": 0}}, "greater than 0"),
    ],
)
def test_impossible_fields_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EDC.model_validate(fields)


def test_a_possible_method_has_no_refusal() -> None:
    assert refusals(EDC()) == []
    assert refusals(SRe2L()) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"taps": {"patch_side": 9}}, "taps.patch_side is 9 but images have 8 x 8 pixels"),
        ({"taps": {"bn": False, "conv": False}}, "taps names no layer"),
        ({"observers": [1]}, "observers names 1, but there are 1, counted from 0"),
        ({"observers": [0], "statistics": {"files": ["a", "b"]}}, "names 2 files for 1 observers"),
        ({"statistics": {"files": ["a", "b"]}}, "names 2 files for 1 observers"),
        ({"taps": {"bn": True, "conv": False}}, "observer-0 .convnet2-w8. has no batch norm"),
        (
            {
                "match": {"category_matching": "per_class", "momentum_reset": "never"},
            },
            "running statistics of classes cannot go on",
        ),
        ({"init": {"kind": "real"}}, "ipc is 10 but class 0 has 5 images to start from"),
        ({"iterations": 0}, "would stay the real ones that they start from"),
    ],
)
def test_what_the_data_or_the_observers_make_impossible_is_said(
    fields: dict[str, object], message: str
) -> None:
    method = EDC.model_validate(fields)
    arch = "convnet2-w8" if "convnet2-w8." in message else "convnet2-w8-bn"
    counts = [5] * 10 if "init" in fields else COUNTS

    found = [*method.check(DIGITS, counts), *method.check_observers(DIGITS, (arch,))]

    assert len(found) in (1, 10)  # ten classes
    assert re.search(message, found[0])


def test_a_single_image_per_class_cannot_be_spread() -> None:
    alone = {"ce": 0.0, "stat": 0.0, "densify": {"weight": 1.0}}
    one, two = (Target(10, ipc, 1, 8, 8) for ipc in (1, 2))

    (sentence,) = EDC.model_validate({"losses": alone}).check(one, COUNTS)

    assert "losses.densify spreads the images of a class, of which there is one" in sentence
    assert not list(EDC.model_validate({"losses": alone}).check(two, COUNTS))
    for other in ("ce", "stat", "tv", "l2"):
        beside = EDC.model_validate({"losses": {**alone, other: 1.0}})
        assert not list(beside.check(one, COUNTS)), other


def test_terms_of_weight_0_make_no_demands() -> None:
    without = {"losses": {"stat": 0.0}, "taps": {"patch_side": 99}}

    assert refusals(SRe2L.model_validate(without), archs=("convnet2-w8",)) == []


def test_a_build_to_start_from_is_a_base() -> None:
    method = EDC.model_validate({"init": {"kind": "build", "build": "rded_digits_10"}})

    (sentence,) = method.check_bases(DIGITS, {"rded_digits_10": 3})

    assert method.bases == ("rded_digits_10",)
    assert "rded_digits_10 has 3 images per class" in sentence


def test_the_cost_has_the_passes_of_every_kind() -> None:
    target = target_of(tiny_data(), 2)
    method = EDC.model_validate(
        {"iterations": 10, "batch": {"size": 4}, "statistics": {"batch": 6}}
    )

    cost = method.cost(target, [6, 6, 6])

    found = {p.name: (p.calls, p.rows, p.network, p.backward, p.shared) for p in cost.parts}
    assert cost.steps == 20  # two batches
    assert found == {
        "statistics": (3, 6, "every observer", False, True),
        "steps": (20, 3, "observers", True, False),
        "flatness": (20, 3, "observers", False, False),
    }


def test_the_cost_of_sre2l_is_its_steps_on_one_network() -> None:
    cost = SRe2L(iterations=7).cost(target_of(tiny_data(), 2), [6, 6, 6])

    assert [(p.name, p.calls, p.network) for p in cost.parts] == [("steps", 7, "observer-0")]
