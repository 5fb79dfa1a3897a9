"""What a recipe may rest on, told before anything is built."""

import shutil
from pathlib import Path

import pytest

from distillhub.errors import RecipeError
from distillhub.pipeline.bases import Link, link
from distillhub.pipeline.project import Project
from distillhub.pipeline.resolve import foresee

RECIPES = Path(__file__).resolve().parents[3] / "recipes"


def upper(folder: Path, ipc: int) -> Link:
    """EDC that starts from mosaics of IDM, one of four images per class."""
    text = (RECIPES / "edc_digits_3.yaml").read_text(encoding="utf-8")
    text = text.replace("ipc: 3", f"ipc: {ipc}")
    text = text.replace("{kind: real, flip: false}", "{kind: build, build: idm_digits_1}")
    (folder / "recipes").mkdir()
    (folder / "recipes/upper.yaml").write_text(text, encoding="utf-8")
    shutil.copy(RECIPES / "idm_digits_1.yaml", folder / "recipes")
    (folder / "recipes/index.yaml").write_text("recipes: []\n", encoding="utf-8")
    (folder / "distillhub.toml").write_text("", encoding="utf-8")
    return link(folder / "recipes/upper.yaml")


def test_a_build_of_mosaics_gives_its_sub_images_to_start_from(tmp_path):
    foresee(upper(tmp_path, 4), Project.at(tmp_path))


def test_more_images_than_the_sub_images_of_a_build_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="build idm_digits_1 has 4 images per class"):
        foresee(upper(tmp_path, 5), Project.at(tmp_path))
