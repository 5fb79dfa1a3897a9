"""A recipe file is understood wholly, or every fault of it is told with its place and its mend."""

from pathlib import Path

import pytest

from distillhub.errors import RecipeError
from distillhub.models.specs import ModelSpec, TrainSpec
from distillhub.recipe.loading import load_recipe

GOOD = """\
schema_version: 1
name: digits-random-3
dataset: {id: "sklearn:digits"}
ipc: 3
method: {name: random, version: 1}
teacher: {arch: convnet3-w32, steps: 5}
relabel: {}
evaluate:
  - {protocol: digits-1}
card: {license: cc-by-4.0}
"""


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str, name: str = "made_up.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def faults(path: Path) -> str:
    with pytest.raises(RecipeError, match=r".") as caught:
        load_recipe(path)
    return str(caught.value)


def test_an_unknown_network_of_a_queue_is_told_with_its_line(write):
    text = GOOD.replace("name: random, version: 1", "name: idm, queue: {arch: nonsense}")

    told = faults(write(text))

    assert "made_up.yaml:5: method.queue.arch" in told
    assert "nonsense" in told


def test_a_good_recipe_is_read(write):
    recipe = load_recipe(write(GOOD))

    assert (recipe.ipc, recipe.method.name, recipe.seed) == (3, "random", 0)


def test_a_network_with_weights_is_pretrained_and_one_without_is_trained(write):
    recipe = load_recipe(write(GOOD + "observers: [{arch: resnet18, weights: default}]\n"))

    assert isinstance(recipe.teacher, TrainSpec)
    assert isinstance(recipe.observers[0], ModelSpec)


def test_all_faults_are_told_at_once_each_with_its_line(write):
    text = GOOD.replace("ipc: 3", "ipc: 0").replace("name: digits-random-3", "name: Digits!")
    text = text.replace("convnet3-w32", "convnet3-w32x")

    told = faults(write(text))

    assert "made_up.yaml:2: name" in told
    assert "made_up.yaml:4: ipc" in told
    assert "made_up.yaml:6: teacher.arch" in told


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("ipc: 3", "ipx: 3", "did you mean 'ipc'"),
        ("ipc: 3", "ipc: three", "ipc: input should be a valid integer"),
        ("name: random,", "name: rnadom,", "did you mean 'random'"),
        ("version: 1}", "version: 99}", "another version of random"),
        ("version: 1}", "version: 1, iterations: 3}", "unknown key 'iterations'"),
        ("relabel: {}", "relabel: {views: {scale: [20, 100]}}", "looks like a percentage"),
        ("relabel: {}", "relabel: {bugdet: 2.0}", "did you mean 'budget'"),
        ("protocol: digits-1", "protocol: digits-9", "did you mean 'digits-1'"),
        ('id: "sklearn:digits"', 'id: "sklearn:digits", test: 20', "did you mean 0.2"),
        ("card: {license: cc-by-4.0}", "card: {}", "key 'license' is missing"),
        (
            "teacher: {arch: convnet3-w32, steps: 5}",
            "teacher: null",
            "soft labels come from the teacher",
        ),
        ("schema_version: 1", "schema_version: 2", "schema_version"),
        ("name: digits-random-3", "name: ../../etc", "not a safe name"),
        ("ipc: 3", "ipc: !!python/object/apply:os.system [ls]", "is not allowed"),
        ("ipc: 3", "ipc: 3\nipc: 4", "duplicate key"),
        ("ipc: 3", "ipc: [", "not valid YAML"),
    ],
)
def test_a_fault_names_what_is_wrong(write, old: str, new: str, sentence: str):
    assert old in GOOD

    assert sentence in faults(write(GOOD.replace(old, new, 1)))


def test_a_file_name_that_is_not_safe_is_refused(write):
    assert "not a safe file name" in faults(write(GOOD, "My Recipe.yaml"))


def test_a_missing_file_is_told_as_such(tmp_path):
    assert "cannot be read" in faults(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "42\n", "\x00", "a: &x [*x]\n", "? [1, 2]\n: 3\n"]
)
def test_what_is_no_mapping_is_refused_without_a_traceback(write, text: str):
    assert "made_up.yaml" in faults(write(text))


def test_labels_by_an_observer_that_is_not_there_are_refused(write):
    two = "observers: [{arch: mlp}, {arch: lenet}]\n"
    text = GOOD.replace("relabel: {}", "relabel: {by: observers, observers: [0, 2]}") + two

    told = faults(write(text))

    assert "relabel.observers: there is no observer 2; the recipe has 2, counted from 0" in told
    assert load_recipe(write(text.replace("[0, 2]", "[0, 1]"))).labelling == (
        "observer-0",
        "observer-1",
    )


def test_steps_and_epochs_together_are_refused(write):
    told = faults(write(GOOD.replace("steps: 5", "steps: 5, epochs: 2")))

    assert "the length is given by steps or by epochs; both are given" in told


def test_arms_with_online_labels_need_no_teacher_where_observers_label(write):
    arms = GOOD.replace("digits-1}", "smoke-online-1, arms: [syn_soft_online]}")
    alone = arms.replace("teacher: ", "observers: [").replace("steps: 5}", "steps: 5}]")

    assert load_recipe(write(alone.replace("relabel: {}", "relabel: {by: observers}"))).labelling
    assert "needs a teacher" in faults(write(alone.replace("relabel: {}\n", "")))
