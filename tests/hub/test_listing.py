"""A catalog of what an organisation has published."""

import copy
from pathlib import Path

from tests.hub.loopback import Hub, Repo
from tests.hub.process import environment, run


def test_the_sets_of_an_organisation_are_listed_without_their_rows(
    hub: Hub, published: dict[str, Repo], tmp_path: Path
):
    hub.repos.update(copy.deepcopy(published))
    settings = environment(hub.url, tmp_path / "home")

    done = run([["catalog", "org", "--out", str(tmp_path / "site")]], tmp_path, settings)[0]

    assert done.code == 0, done.err
    assert "1 set in" in done.out
    assert len(list((tmp_path / "site" / "sets").glob("*/assets/contact_sheet.png"))) == 1
    assert not [asked for asked in hub.requests if ".parquet" in asked]


def test_an_organisation_without_sets_is_said_to_have_none(hub: Hub, tmp_path: Path):
    settings = environment(hub.url, tmp_path / "home")

    done = run([["catalog", "nobody", "--out", str(tmp_path / "site")]], tmp_path, settings)[0]

    assert done.code == 4
    assert "no set made by distillhub" in done.err
    assert not (tmp_path / "site").exists()
