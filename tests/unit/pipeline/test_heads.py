"""Outputs of existing weights are brought into the order of the classes, or the weights refused."""

import pytest
import torch

from distillhub.errors import RecipeError
from distillhub.models.specs import ModelSpec
from distillhub.pipeline.heads import checked_top1, outputs_of

SPEC = ModelSpec(arch="mlp", weights="some.safetensors")
NAMED = SPEC.model_copy(update={"class_names": ("cat", "cow", "dog")})
ANIMALS = ("cat", "cow", "dog")


def test_equal_names_are_taken_as_they_are():
    assert outputs_of(SPEC, ANIMALS, 3, ANIMALS) is None


def test_weights_that_name_nothing_are_trusted_where_the_number_fits():
    assert outputs_of(SPEC, None, 3, ANIMALS) is None


def test_another_order_is_mended_by_name():
    assert outputs_of(SPEC, ("dog", "cat", "cow"), 3, ANIMALS) == [1, 2, 0]


def test_a_part_of_the_classes_is_found_by_name():
    assert outputs_of(SPEC, ANIMALS, 3, ("dog", "cat")) == [2, 0]


def test_names_of_the_recipe_go_before_those_of_the_file():
    assert outputs_of(NAMED, ("0", "1", "2"), 3, ("dog", "cat")) == [2, 0]


@pytest.mark.parametrize(
    ("spec", "names", "count", "classes", "sentence"),
    [
        (SPEC, ("cat", "cow", "pig"), 3, ANIMALS, "not 1 of the data set's 3, e.g. 'dog'"),
        (SPEC, None, 4, ANIMALS, "knows 4 classes, and does not say which"),
        (NAMED, None, 4, ANIMALS, "3 classes are named, the weights have 4 outputs"),
        (
            SPEC.model_copy(update={"class_names": ("cat", "dog", "cat")}),
            None,
            3,
            ("cat", "dog"),
            "2 outputs are called 'cat'",
        ),
        (SPEC, tuple(map(str, range(1000))), 1000, ANIMALS, "not 3 of the data set's 3"),
    ],
)
def test_classes_without_an_output_of_their_own_are_refused(spec, names, count, classes, sentence):
    with pytest.raises(RecipeError, match=sentence):
        outputs_of(spec, names, count, classes)


def test_imagenet_networks_know_the_subsets_under_any_spelling():
    theirs = [f"thing {label}" for label in range(1000)]
    ours = ("n02869837 bonnet, poke bonnet", "green mamba", "n02488291")

    assert outputs_of(SPEC, theirs, 1000, ours) == [452, 64, 374]
    assert outputs_of(SPEC, None, 1000, ours) == [452, 64, 374]


def test_all_imagenet_classes_have_the_order_of_their_wnids():
    folders = [f"n{label:08d}" for label in reversed(range(1000))]
    words = [f"word {label}, another" for label in range(1000)]

    assert outputs_of(SPEC, None, 1000, folders) == list(reversed(range(1000)))
    assert outputs_of(SPEC, words[::-1], 1000, words) != list(range(1000))  # by name where it can
    assert outputs_of(SPEC, [f"x{n}" for n in range(1000)], 1000, words) == list(range(1000))


def test_a_name_that_two_imagenet_outputs_have_is_told_apart_by_its_label():
    theirs = ["crane" if label in (0, 517) else f"thing {label}" for label in range(1000)]
    ours = ["crane" if label in (134, 517) else f"our {label}" for label in range(1000)]

    assert outputs_of(SPEC, theirs, 1000, ours) == list(range(1000))


def answers(right: int, wrong: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of so many images; a wrong cat is a dog."""
    labels = torch.zeros(right + wrong, dtype=torch.int64)
    given = torch.tensor([0] * right + [2] * wrong)
    return torch.nn.functional.one_hot(given, 3).float(), labels


def test_an_accuracy_far_below_the_known_one_is_refused_and_names_the_confusion():
    spec = SPEC.model_copy(update={"top1": 0.9})

    with pytest.raises(
        RecipeError, match=r"50\.0 % of 1000 .*known for 90\.0 %; 'cat' is often"
    ) as e:
        checked_top1(spec, *answers(500, 500), ANIMALS)

    assert e.value.faults[0].where == "top1"
    assert "class_names" in e.value.faults[0].mend


def test_an_accuracy_about_the_known_one_is_taken():
    spec = SPEC.model_copy(update={"top1": 0.9})

    assert checked_top1(spec, *answers(810, 190), ANIMALS) == pytest.approx(0.81)


def test_few_images_allow_a_larger_gap():
    spec = SPEC.model_copy(update={"top1": 0.9})

    assert checked_top1(spec, *answers(6, 4), ANIMALS) == pytest.approx(0.6)  # 3 errors are 28 %
    with pytest.raises(RecipeError, match="top1"):
        checked_top1(spec, *answers(60, 40), ANIMALS)


def test_without_a_known_accuracy_any_is_taken():
    assert checked_top1(SPEC, *answers(0, 10), ANIMALS) == 0.0
    assert checked_top1(SPEC, torch.empty(0, 3), torch.empty(0, dtype=torch.int64), ANIMALS) is None
