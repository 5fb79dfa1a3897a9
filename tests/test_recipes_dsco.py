"""The recipes of Dataset Concentration name the figures of its tables and what their builds need.

The figures are those of arXiv 2603.27987, in percent.
"""

from pathlib import Path

import pytest

from distillhub.errors import RecipeError
from distillhub.evaluation import protocols
from distillhub.evaluation.specs import EvalSpec
from distillhub.pipeline.bases import chain
from distillhub.pipeline.building import build
from distillhub.pipeline.reporting import Silent
from distillhub.recipe.loading import load_recipe
from distillhub.recipe.schema import Recipe

FOLDER = Path(__file__).resolve().parent.parent / "recipes"
SMALL = ("convnet6", "resnetap10", "resnet18-in")
LARGE = ("torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:efficientnet_b0")
DEEP = ("torchvision:resnet18", "torchvision:resnet34", "torchvision:resnet101",
        "torchvision:efficientnet_b0", "torchvision:densenet121")  # fmt: skip
PUBLISHED = {
    "dsco_imagenette_10": (1, SMALL, (65.7, 69.8, 70.3)),
    "dsco_imagenette_50": (1, SMALL, (83.2, 84.0, 83.4)),
    "dsco_imagenette_100": (1, SMALL, (86.9, 86.9, 86.5)),
    "dsco_imagewoof_10": (2, SMALL, (37.9, 47.1, 45.2)),
    "dsco_imagewoof_50": (2, SMALL, (53.7, 65.3, 65.5)),
    "dsco_imagewoof_100": (2, SMALL, (63.0, 71.2, 72.7)),
    "dsco_imagenette_700": (3, ("resnetap10",), (97.2,)),
    "dsco_imagewoof_700": (4, ("resnetap10",), (88.9,)),
    "dsco_in1k_10": (5, LARGE, (47.0, 42.3, 50.9)),
    "dsco_in1k_50": (5, LARGE, (60.4, 59.0, 63.0)),
    "dfdsco_in1k_10": (5, LARGE, (43.3, 40.6, 49.1)),
    "dfdsco_in1k_50": (5, LARGE, (58.2, 57.4, 61.8)),
    "dsco_in1k_700": (6, DEEP, (69.0, 69.1, 70.1, 66.4, 67.2)),
}
"""Table, students and accuracies."""


def recipe(stem: str) -> Recipe:
    return load_recipe(FOLDER / f"{stem}.yaml")


def native(stem: str) -> EvalSpec:
    """The entry with the paper's own protocol."""
    (found,) = [spec for spec in recipe(stem).evaluate if spec.protocol.startswith("dsco-")]
    return found


@pytest.mark.parametrize("stem", PUBLISHED)
def test_the_figures_are_those_of_the_table(stem: str) -> None:
    table, students, tops = PUBLISHED[stem]

    assert {arch: expected.top1 for arch, expected in native(stem).expect.items()} == {
        arch: pytest.approx(top / 100) for arch, top in zip(students, tops, strict=True)
    }
    assert {expected.source for expected in native(stem).expect.values()} == {
        f"arXiv 2603.27987, Table {table}"
    }


@pytest.mark.parametrize("stem", PUBLISHED)
def test_every_student_with_a_figure_is_trained(stem: str) -> None:
    spec = native(stem)

    trained = spec.students or protocols.get(spec.protocol).students_for(256, 256)
    assert set(spec.expect) <= set(trained)


@pytest.mark.parametrize("stem", PUBLISHED)
def test_sets_of_the_published_generator_carry_its_license(stem: str) -> None:
    assert recipe(stem).card.license == "cc-by-nc-4.0"
    assert recipe(stem).card.redistributable == "no"


@pytest.mark.parametrize(
    ("stem", "base"),
    [
        ("dsco_imagenette_700", "dsco_imagenette_100"),
        ("dsco_imagewoof_700", "dsco_imagewoof_100"),
        ("dsco_in1k_700", "dsco_in1k_50"),
    ],
)
def test_a_doped_set_rests_on_the_published_size_and_keeps_real_pixels_to_itself(stem, base):
    assert [link.path.stem for link in chain(FOLDER / f"{stem}.yaml")] == [base, stem]
    assert recipe(stem).method.by_reference
    assert recipe(stem).dataset == recipe(base).dataset


@pytest.mark.parametrize("data", ["digits", "fashion_mnist", "cifar10"])
def test_all_recipes_of_a_data_set_share_one_generator(data: str) -> None:
    stems = [p.stem for p in FOLDER.glob(f"*_{data}_*.yaml")]

    found = {recipe(stem).generator for stem in stems} - {None}
    assert len(found) == 1


@pytest.mark.parametrize("ipc", [1, 3, 10])
def test_methods_on_digits_differ_in_nothing_but_the_method(ipc: int) -> None:
    first, *others = (recipe(f"{name}_digits_{ipc}") for name in ("dit", "dsco", "dfdsco"))

    mine = first.model_dump(exclude={"name", "method"})
    assert all(other.model_dump(exclude={"name", "method"}) == mine for other in others)
    sampling = {"steps", "cfg", "cfg_channels"}
    assert all(
        other.method.model_dump(include=sampling) == first.method.model_dump(include=sampling)
        for other in others
    )


def test_the_flagship_without_a_gpu_ends_in_one_message_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILLHUB_DEVICE", "cpu")

    with pytest.raises(RecipeError) as caught:
        build(FOLDER / "dsco_in1k_700.yaml", reporter=Silent(), workspace=tmp_path / "work")

    (fault,) = caught.value.faults
    assert fault.what.startswith("protocol dsco-in1k-high-1 is meant for a GPU")
    assert fault.mend
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []
