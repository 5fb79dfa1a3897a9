"""What a recipe may say of the published set."""

import pytest
from pydantic import ValidationError

from distillhub.packaging.specs import CardSpec, PackageSpec, PublishSpec


def test_another_license_needs_a_name_and_a_link():
    with pytest.raises(ValidationError, match="license_name and license_link"):
        CardSpec(license="other", license_name="mine")


def test_a_note_is_one_line():
    with pytest.raises(ValidationError, match="notes"):
        CardSpec(license="mit", notes=("two\nlines",))


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "1.0.0-rc1", "01.0.0"])
def test_a_version_is_three_numbers(version: str):
    with pytest.raises(ValidationError):
        PackageSpec(version=version)


@pytest.mark.parametrize("repo_id", ["name", "a/b/c", "a/../b", "/b", "a b/c"])
def test_a_repository_is_organisation_and_name(repo_id: str):
    with pytest.raises(ValidationError):
        PublishSpec(repo_id=repo_id)
