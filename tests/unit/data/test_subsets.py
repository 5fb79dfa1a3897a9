import pytest

from distillhub.data.subsets import (
    IMAGENET10,
    IMAGENETTE,
    IMAGEWOOF,
    SUBSETS,
    imagenet_labels,
    resolve_classes,
)
from distillhub.errors import RecipeError

_THOUSAND = tuple(f"thing {number}" for number in range(1000))


def test_no_choice_takes_every_class() -> None:
    assert resolve_classes(None, ["cat", "dog"]) == [0, 1]


def test_the_order_is_that_of_the_recipe() -> None:
    assert resolve_classes(("dog", "cat"), ["cat", "dog", "ship"]) == [1, 0]


def test_a_wnid_finds_the_name_it_opens() -> None:
    assert resolve_classes(("n01443537", "n01440764"), ["n01440764 tench", "n01443537 fish"]) == [
        1,
        0,
    ]


def test_a_word_finds_the_name_with_synonyms() -> None:
    assert resolve_classes(("Tinca tinca",), ["goldfish", "tench, Tinca tinca"]) == [1]


def test_part_of_a_word_finds_nothing() -> None:
    with pytest.raises(RecipeError, match="there is no class 'fish'"):
        resolve_classes(("fish",), ["goldfish", "tench"])


@pytest.mark.parametrize("subset", [IMAGENETTE, IMAGEWOOF, IMAGENET10])
def test_a_subset_names_ten_classes(subset: tuple[object, ...]) -> None:
    assert len(set(subset)) == 10


def test_wnids_and_labels_of_imagenet_ascend_together() -> None:
    synsets = sorted({*IMAGENETTE, *IMAGEWOOF, *IMAGENET10})

    assert [s.label for s in synsets] == sorted(s.label for s in synsets)


def test_a_subset_is_found_by_label_where_names_are_words() -> None:
    assert resolve_classes("imagewoof", _THOUSAND)[:3] == [193, 182, 258]


def test_a_subset_is_found_by_word_in_a_set_of_its_own() -> None:
    names = [synset.word for synset in reversed(IMAGENETTE)]

    assert resolve_classes("imagenette", names) == list(range(9, -1, -1))


def test_an_unknown_subset_offers_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'imagenette'"):
        resolve_classes("imagenett", ["cat"])


def test_all_unknown_classes_are_reported_together() -> None:
    with pytest.raises(RecipeError, match=r"(?s)'caat'.*nearest names of 2: 'cat'.*'dgo'"):
        resolve_classes(("caat", "dgo"), ["cat", "dog"])


def test_a_class_taken_twice_is_an_error() -> None:
    with pytest.raises(RecipeError, match="class 'cat' is taken twice"):
        resolve_classes(("cat", "CAT"), ["cat", "dog"])


def test_a_name_of_two_classes_is_an_error() -> None:
    with pytest.raises(RecipeError, match="'crane' fits 2 classes"):
        resolve_classes(("crane",), ["crane, bird", "crane, machine"])


def test_an_empty_list_is_an_error() -> None:
    with pytest.raises(RecipeError, match="no class is named"):
        resolve_classes((), ["cat", "dog"])


def test_all_classes_of_imagenet_keep_their_labels() -> None:
    wnids = [f"n{number:08d} word" for number in range(1000)]

    assert imagenet_labels([f"class {n}" for n in range(1000)]) == list(range(1000))
    assert imagenet_labels(wnids) == list(range(1000))
    assert imagenet_labels(wnids[::-1]) == list(range(1000))[::-1]


@pytest.mark.parametrize("subset", list(SUBSETS))
def test_classes_of_a_named_subset_have_their_imagenet_label_by_wnid_or_word(subset: str) -> None:
    labels = [synset.label for synset in SUBSETS[subset]]

    assert imagenet_labels([synset.wnid for synset in SUBSETS[subset]]) == labels
    assert imagenet_labels([synset.word.lower() for synset in SUBSETS[subset]]) == labels


def test_other_classes_have_no_imagenet_label() -> None:
    assert imagenet_labels(["tench, Tinca tinca", "circle"]) == [0, None]
