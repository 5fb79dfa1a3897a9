"""A build does what is needed and nothing else, and gives the same artifact wherever it runs."""

import errno

import datasets
import pytest

from distillhub.errors import DivergedError, RecipeError, StorageError, UsageError
from distillhub.packaging.verify import verify
from distillhub.pipeline import judging
from distillhub.pipeline.building import refuse_missing_git
from distillhub.pipeline.project import Project
from tests.integration.builds import TINY, Log, build_here, digest_of, runs_of, write_recipe


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    recipe = write_recipe(tmp_path_factory.mktemp("tiny"))
    return recipe, build_here(recipe)


def test_the_dataset_opens_with_load_dataset_alone(built, tmp_path):
    rows = datasets.load_dataset(str(built[1]), split="train", cache_dir=str(tmp_path))

    assert {"image", "label", "soft_val", "view_crop", "view_flip"} <= set(rows.column_names)
    assert rows["label"][:] == [c for c in range(10) for _ in range(2)]


def test_the_dataset_passes_its_own_verification(built):
    assert verify(built[1]).faults == ()


def test_a_second_build_runs_no_stage(built):
    log = Log()
    build_here(built[0], log)

    assert log.stages == []


def test_two_builds_in_two_folders_give_one_digest(built, tmp_path):
    other = build_here(write_recipe(tmp_path))

    assert digest_of(other) == digest_of(built[1])
    assert runs_of(other) == runs_of(built[1])


def test_a_change_of_evaluate_reruns_evaluate_and_card_and_remakes_no_twin(tmp_path):
    recipe = write_recipe(tmp_path)
    build_here(recipe)
    log = Log()

    recipe.write_text(TINY.replace("[convnet2-w8], arms", "[convnet2-w8, mlp], arms"))
    build_here(recipe, log)

    assert log.stages == ["evaluate", "card"]
    assert not [note for note in log.notes if "twin" in note]


def test_a_comment_in_the_recipe_reruns_the_card_at_most(tmp_path):
    recipe = write_recipe(tmp_path)
    build_here(recipe)
    log = Log()

    recipe.write_text("# a remark\n" + TINY)
    build_here(recipe, log)

    assert set(log.stages) <= {"card"}


def test_a_broken_recipe_leaves_the_finished_dataset(built, tmp_path):
    recipe = write_recipe(tmp_path)
    before = digest_of(build_here(recipe))

    recipe.write_text(TINY.replace("ipc: 2", "ipc: 2000"))
    with pytest.raises(RecipeError, match="ipc is 2000 but class"):
        build_here(recipe)

    assert digest_of(tmp_path / ".distillhub/workspace/artifacts/tiny/dataset") == before


def test_another_recipe_of_the_same_name_is_not_overwritten(built, tmp_path):
    with pytest.raises(UsageError, match="another recipe called tiny"):
        build_here(write_recipe(tmp_path, TINY.replace("ipc: 2", "ipc: 1")), folder=built[0].parent)


def test_two_recipes_share_one_teacher(tmp_path):
    first = build_here(write_recipe(tmp_path))
    log = Log()
    second = build_here(write_recipe(tmp_path, TINY.replace("ipc: 2", "ipc: 1"), stem="other"), log)

    teachers = [
        (folder.parent / "models" / "teacher.safetensors").read_bytes()
        for folder in (first, second)
    ]
    assert teachers[0] == teachers[1]
    assert len(list(tmp_path.rglob("network.safetensors"))) == 1


def test_a_full_disk_is_told_and_leaves_the_finished_dataset(tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path)
    before = digest_of(build_here(recipe))

    def full(inputs, out):
        (out / "README.md").write_text("half a card")
        raise OSError(errno.ENOSPC, "No space left on device", str(out))

    monkeypatch.setattr(judging, "build_card", full)
    recipe.write_text(TINY.replace("ipc: 2", "ipc: 1"))
    with pytest.raises(StorageError, match="the disk is full"):
        build_here(recipe)

    dataset = tmp_path / ".distillhub/workspace/artifacts/tiny/dataset"
    assert digest_of(dataset) == before
    assert verify(dataset).faults == ()


def test_a_loss_that_diverges_is_named_with_step_and_unit_and_nothing_is_written(tmp_path):
    recipe = write_recipe(
        tmp_path, TINY.replace("batch_real: 16", "batch_real: 16, lr_img: 1.0e+38")
    )

    with pytest.raises(DivergedError, match="at step") as caught:
        build_here(recipe)

    assert "class-000" in str(caught.value)
    assert not (tmp_path / ".distillhub/workspace/artifacts/tiny/images").exists()


def test_labels_that_exceed_their_budget_are_refused_with_the_sizes(tmp_path):
    recipe = write_recipe(tmp_path, TINY.replace("count: 2, budget: 9.0", "count: 50, budget: 0.1"))

    with pytest.raises(RecipeError, match=r"the budget of 0\.1 x"):
        build_here(recipe)


def test_a_recipe_for_gpus_is_refused_on_a_cpu_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLHUB_DEVICE", "cpu")
    text = TINY.replace(
        "smoke-cpu-1, students: [convnet2-w8], arms: [syn_hard, rnd_hard, syn_soft, rnd_soft]",
        "hard-1",
    )
    recipe = write_recipe(tmp_path, text)

    with pytest.raises(RecipeError, match="protocol hard-1 is meant for a GPU"):
        build_here(recipe)

    assert not (tmp_path / ".distillhub").exists()


def test_a_project_without_git_is_told_what_dvc_needs(tmp_path):
    with pytest.raises(UsageError, match="DVC needs a git repository") as caught:
        refuse_missing_git(Project(tmp_path, tmp_path / ".distillhub"))

    assert "--direct" in str(caught.value)
