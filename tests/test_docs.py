"""The documentation says what is so: tables are current, and the commands of the tutorial run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from distillhub.recipe.json_schema import json_schema
from distillhub.recipe.reference import update
from distillhub_cli.main import app
from tests.made_up import shapes_folder

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *sorted(DOCS.glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_the_table_of_recipe_keys_is_current():
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")

    assert update(page) == page, "mend with: distillhub schema --reference docs/recipes.md"


def test_the_blocks_inside_methods_have_tables_of_their_own():
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")

    edc = page.partition("### `method: {name: edc}`")[2].partition("\n### ")[0]
    (start,) = re.findall(r"\| `init` \| \[block\]\(#(.*?)\)", edc)
    (faults,) = re.findall(r"\| `compat` \| \[block\]\(#(.*?)\)", edc)

    assert (start, faults) == ("methodinit-of-edc-gvbsm-sre2l", "methodcompat-of-edc-gvbsm-sre2l")
    table = page.partition("### `method.init` of edc")[2].partition("\n### ")[0]
    assert "| `kind` | `noise`, `real`, `patches`, `build` |" in table


def test_the_json_schema_for_editors_is_current():
    stored = json.loads((DOCS / "recipe.schema.json").read_text(encoding="utf-8"))

    assert stored == json_schema(), "mend with: distillhub schema --out docs/recipe.schema.json"


def test_every_command_is_in_the_table_of_commands():
    page = (DOCS / "cli.md").read_text(encoding="utf-8")

    missing = [name for name in typer.main.get_command(app).commands if f"| `{name}" not in page]

    assert missing == []


def test_every_exit_code_is_explained():
    from distillhub import errors

    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    codes = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}

    assert [code for code in codes if f"\n| {code} |" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_is_there(page):
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8"))

    assert [t for t in targets if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_anchor_of_a_page_is_one_of_its_headings(page):
    text = page.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }

    assert set(re.findall(r"\]\(#([^)]+)\)", text)) - headings == set()


@pytest.mark.slow
def test_the_commands_of_the_tutorial_run_in_order(tmp_path):
    shapes_folder(tmp_path / "photos", per_class=24, side=16)
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": os.pathsep.join([bin_folder, os.environ["PATH"]])}
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    steps = re.findall(r"^```(bash|python)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)

    for language, text in steps:
        command = ["bash", "-euc", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"

    assert (tmp_path / "model" / "model.safetensors").is_file()
