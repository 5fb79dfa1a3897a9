"""validate, schema, list."""

import json

import pytest


def test_a_valid_recipe_is_said_to_be_valid(run, recipe):
    result = run("validate", recipe)

    assert result.stdout == "1 recipe valid\n"
    assert result.exit_code == 0


def test_faults_of_several_recipes_are_reported_together(run, recipe, tmp_path):
    text = recipe.read_text()
    (tmp_path / "one.yaml").write_text(text.replace("ipc: 1", "ipcc: 1"))
    (tmp_path / "two.yaml").write_text(text.replace("random", "randon"))

    result = run("validate", ".")

    assert result.exit_code == 3
    assert "one.yaml:4: ipcc" in result.stderr
    assert "two.yaml:5: method.name" in result.stderr
    assert "did you mean 'random'" in result.stderr


def test_a_folder_without_recipes_is_a_usage_error(run, tmp_path):
    (tmp_path / "empty").mkdir()

    assert run("validate", "empty").exit_code == 2


def test_the_schema_is_json_that_knows_the_methods(run):
    schema = json.loads(run("schema").stdout)

    assert schema["title"] == "distillhub recipe"
    assert "DM" in schema["$defs"]


def test_the_schema_can_be_written_to_a_file(run, tmp_path):
    run("schema", "--out", "s.json")

    assert json.loads((tmp_path / "s.json").read_text())["type"] == "object"


@pytest.mark.parametrize(
    ("what", "word"),
    [("methods", "dm"), ("protocols", "lowres-1"), ("models", "convnet3"), ("recipes", "tiny")],
)
def test_a_list_names_what_there_is(run, project, what, word):
    assert word in run("list", what).stdout


def test_what_cannot_be_listed_is_a_usage_error_with_the_choices(run):
    result = run("list", "datasets")

    assert result.exit_code == 2
    assert "protocols" in result.stderr
