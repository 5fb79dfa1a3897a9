"""One tiny set for all tests here, its variants, and a Hub of their own."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distillhub.packaging.card import CARD, REPORT
from distillhub.packaging.rendering import render
from distillhub.records.manifest import MANIFEST, Manifest, entry_of
from distillhub.records.report import EvalReport, dumps, loads
from tests.hub.loopback import Hub, Repo
from tests.hub.process import environment, run
from tests.integration.builds import build_here, write_recipe


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished set of twenty digits; do not write into it."""
    return build_here(write_recipe(tmp_path_factory.mktemp("hub-build")))


@pytest.fixture(scope="session")
def variant(
    tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Callable[[EvalReport], EvalReport]], Path]:
    """`variant(change)`: the set with another report, its card and manifest made to match."""

    def make(change: Callable[[EvalReport], EvalReport]) -> Path:
        folder = tmp_path_factory.mktemp("hub-variant") / "set"
        shutil.copytree(tiny, folder)
        report = change(loads((folder / REPORT).read_bytes()))
        (folder / REPORT).write_text(dumps(report), encoding="utf-8")
        (folder / CARD).write_text(render(report), encoding="utf-8")
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        files = {name: entry_of(folder / name) for name in manifest.files}
        text = manifest.model_copy(update={"files": files}).text()
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def noted(variant: Callable[[Callable[[EvalReport], EvalReport]], Path]) -> Callable[[str], Path]:
    """`noted(text)`: the set with a note on its card."""

    def make(text: str) -> Path:
        def change(report: EvalReport) -> EvalReport:
            assert report.card is not None
            return report.model_copy(
                update={"card": report.card.model_copy(update={"notes": (text,)})}
            )

        return variant(change)

    return make


@pytest.fixture(scope="session")
def published(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repo]:
    """What a Hub holds after the set was published as org/tiny; copy it before use."""
    folder = tmp_path_factory.mktemp("hub-published")
    hub = Hub()
    settings = environment(hub.start(), folder / "home")
    done = run([["publish", str(tiny), "--repo", "org/tiny"]], folder, settings)
    hub.stop()
    assert done[0].code == 0, done[0].err
    return hub.repos


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty Hub."""
    found = Hub()
    found.start()
    yield found
    found.stop()
