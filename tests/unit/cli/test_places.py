"""What a word on the command line stands for."""

import pytest

from distillhub.errors import UsageError
from distillhub_cli import places


def test_a_stem_means_the_recipe_of_the_project(run, project):
    assert places.recipe_file("tiny") == project / "recipes" / "tiny.yaml"


def test_a_path_means_the_file(run, recipe):
    assert places.recipe_file("tiny.yaml").read_text() == recipe.read_text()


def test_an_unknown_recipe_offers_the_nearest(run, project):
    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        places.recipe_file("tinny")


def test_shipped_recipes_are_known_outside_of_a_project(run):
    assert {p.stem for p in places.shipped_recipes()} <= set(places.known_recipes())


def test_the_index_is_no_recipe(run, project):
    assert "index" not in places.known_recipes()


def test_a_build_is_found_by_its_stem(run, project):
    folder = project / "artifacts" / "tiny" / "dataset"
    folder.mkdir(parents=True)

    assert places.dataset("tiny") == str(folder)


def test_a_build_outside_of_a_project_is_found_in_the_workspace(run, tmp_path):
    folder = tmp_path / ".distillhub" / "workspace" / "artifacts" / "tiny" / "dataset"
    folder.mkdir(parents=True)

    assert places.dataset("tiny") == str(folder)


def test_the_folder_of_a_build_means_its_dataset(run, project):
    (project / "artifacts" / "tiny" / "dataset").mkdir(parents=True)

    assert places.dataset("artifacts/tiny") == "artifacts/tiny/dataset"


def test_other_words_are_hub_ids(run):
    assert places.dataset("uoft-cs/cifar10") == "uoft-cs/cifar10"


def test_a_path_that_is_not_there_is_no_hub_id(run):
    with pytest.raises(UsageError, match=r"no dataset '\./gone'"):
        places.dataset("./gone")


def test_publish_wants_files_and_says_how_to_get_them(run):
    result = run("publish", "org/name")

    assert result.exit_code == 2
    assert "hf download" in result.stderr


def test_verify_takes_a_published_set_for_one_of_the_hub(run):
    result = run("verify", "org/name@v1")

    assert result.exit_code == 4
    assert "HF_HUB_OFFLINE is set" in result.stderr


def test_a_command_that_needs_a_project_says_how_to_make_one(run):
    result = run("status")

    assert result.exit_code == 2
    assert "distillhub init --project ." in result.stderr


def test_completion_knows_recipes_and_builds(run, project):
    (project / "artifacts" / "tiny" / "dataset").mkdir(parents=True)

    assert places.complete_recipe("ti") == ["tiny"]
    assert places.complete_set("ti") == ["tiny"]


def test_a_misspelt_build_offers_the_nearest_where_files_are_needed(run, project):
    (project / "artifacts" / "tiny" / "dataset").mkdir(parents=True)

    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        places.dataset_folder("tinny")


def test_a_set_of_the_hub_is_to_be_downloaded_where_files_are_needed(run, project):
    with pytest.raises(UsageError, match="hf download --repo-type dataset org/set"):
        places.dataset_folder("org/set")


def test_a_published_version_is_to_be_fetched(run):
    with pytest.raises(UsageError, match=r"distillhub fetch org/set@v1\.0\.0") as refusal:
        places.dataset("org/set@v1.0.0")

    assert "org/set --revision v1.0.0" in str(refusal.value)


def test_a_folder_of_the_same_name_is_no_address(run, project):
    assert places.is_address("org/set")
    (project / "org/set").mkdir(parents=True)
    assert not places.is_address("org/set")
