"""Hub data sets without a Hub: what is asked of it, and what is said when it does not answer."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from distillhub.data.pins import scan
from distillhub.data.sources import open_split, pin_source, prepared_rows
from distillhub.data.specs import SourceSpec
from distillhub.errors import DataError, RecipeError
from tests.unit.data.sets import hub_folder, image_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# httpx or httpx2, by release of huggingface_hub
_HTTP = importlib.import_module(errors.HfHubHTTPError.__mro__[1].__module__)
_RESPONSE = _HTTP.Response(404, request=_HTTP.Request("GET", "https://huggingface.co"))


def _hub(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[str]:
    """A Hub that answers every question about a data set; returns the revisions asked for."""
    asked: list[str] = []

    def dataset_info(self: object, name: str, *, revision: str, timeout: float) -> object:
        asked.append(revision)
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(sha=answer)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    return asked


def _serve(monkeypatch: pytest.MonkeyPatch, folder: Path, cache: Path) -> list[str]:
    """`load_dataset` gives a local folder for whatever id; returns the revisions asked for."""
    real = datasets.load_dataset
    asked: list[str] = []

    def load(name: str, config: str | None, *, revision: str) -> object:
        asked.append(revision)
        return real(str(folder), cache_dir=str(cache))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_without_a_network_the_way_out_is_a_local_copy() -> None:
    with pytest.raises(RecipeError, match=r"(?s)cannot be asked for 'me/set'.*DISTILLHUB_SOURCES"):
        pin_source(SourceSpec(id="me/set"), {}, None)


def test_a_broken_connection_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    _hub(monkeypatch, _HTTP.ConnectError("Name or service not known"))

    with pytest.raises(RecipeError, match="cannot be asked for 'me/set': Name or service not"):
        pin_source(SourceSpec(id="me/set"), {}, None)


def test_a_revision_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _hub(monkeypatch, RevisionNotFoundError("404", response=_RESPONSE))

    with pytest.raises(RecipeError, match=r"dataset\.revision: 'me/set' has no revision 'v9'"):
        pin_source(SourceSpec(id="me/set", revision="v9"), {}, None)


def test_a_restricted_set_says_how_to_get_in(monkeypatch: pytest.MonkeyPatch) -> None:
    _hub(monkeypatch, GatedRepoError("403", response=_RESPONSE))

    with pytest.raises(RecipeError, match=r"(?s)'me/set' is restricted.*hf auth login"):
        pin_source(SourceSpec(id="me/set"), {}, None)


def test_a_set_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _hub(monkeypatch, RepositoryNotFoundError("404", response=_RESPONSE))

    with pytest.raises(RecipeError, match="no data set 'me/set' that you may read"):
        pin_source(SourceSpec(id="me/set"), {}, None)


def test_a_branch_is_pinned_to_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _hub(monkeypatch, COMMIT)
    loaded = _serve(monkeypatch, hub_folder(tmp_path / "set"), tmp_path / "cache")

    pin = pin_source(SourceSpec(id="me/set"), {}, None)

    assert (asked, set(loaded), pin.revision) == (["main"], {COMMIT}, COMMIT)


def test_the_pinned_commit_is_the_one_that_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hub(monkeypatch, COMMIT)
    loaded = _serve(monkeypatch, hub_folder(tmp_path / "set"), tmp_path / "cache")
    spec = SourceSpec(id="me/set")
    pinned = spec.model_copy(update={"pin": pin_source(spec, {}, None)})
    asked = _hub(monkeypatch, _HTTP.ConnectError("no network"))
    loaded.clear()

    open_split(pinned, "train", {})

    assert (asked, loaded) == ([], [COMMIT])


def test_a_commit_that_is_given_can_be_pinned_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hub(monkeypatch, _HTTP.ConnectError("no network"))
    _serve(monkeypatch, hub_folder(tmp_path / "set"), tmp_path / "cache")

    assert pin_source(SourceSpec(id="me/set", revision=COMMIT), {}, None).revision == COMMIT


def test_a_set_that_needs_a_script_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> object:
        raise RuntimeError("Dataset scripts are no longer supported\nbut found set.py")

    _hub(monkeypatch, COMMIT)
    monkeypatch.setattr(datasets, "load_dataset", load)

    with pytest.raises(RecipeError, match="cannot prepare it: Dataset scripts are no longer") as e:
        pin_source(SourceSpec(id="me/set"), {}, None)
    assert len(e.value.faults) == 1


def test_another_commit_in_the_cache_is_not_taken_for_the_pinned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hub(monkeypatch, COMMIT)
    _serve(monkeypatch, hub_folder(tmp_path / "set"), tmp_path / "cache")
    spec = SourceSpec(id="me/set")
    pinned = spec.model_copy(update={"pin": pin_source(spec, {}, None)})
    other = [{"filename": f"/cache/{'f' * 40}/set-train.arrow"}]
    monkeypatch.setattr(datasets.Dataset, "cache_files", other)

    with pytest.raises(DataError, match=f"commit {COMMIT} is not in the cache"):
        open_split(pinned, "train", {})


def test_a_split_the_hub_does_not_have_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hub(monkeypatch, COMMIT)
    _serve(monkeypatch, hub_folder(tmp_path / "set"), tmp_path / "cache")

    with pytest.raises(RecipeError, match=r"(?s)no split 'val'.*known: test, train"):
        pin_source(SourceSpec(id="me/set", test="val"), {}, None)


def test_the_hub_and_a_local_copy_have_the_same_pin_but_for_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hub_folder(tmp_path / "set")
    local = pin_source(SourceSpec(id="me/set"), {"me/set": folder}, None)
    _hub(monkeypatch, COMMIT)
    _serve(monkeypatch, folder, tmp_path / "cache")

    hub = pin_source(SourceSpec(id="me/set"), {}, None)

    assert hub.model_copy(update={"revision": None}) == local


def test_the_hub_and_a_local_copy_show_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hub_folder(tmp_path / "set")
    spec = SourceSpec(id="me/set")
    sources = {"me/set": folder}
    pinned = spec.model_copy(update={"pin": pin_source(spec, sources, None)})
    local = open_split(pinned, "test", sources).pixels(range(4))
    _hub(monkeypatch, COMMIT)
    _serve(monkeypatch, folder, tmp_path / "cache")

    assert torch.equal(open_split(pinned, "test", {}).pixels(range(4)), local)


def test_images_that_lie_beside_the_table_are_read(tmp_path: Path) -> None:
    root = image_folder(tmp_path, {"a": 2})
    paths = [str(path) for path in sorted(root.rglob("*.png"))]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a"]))
    table = datasets.Dataset.from_dict({"image": paths, "label": [0, 0]}, features=features)
    rows = prepared_rows(SourceSpec(id="me/set"), "train", table, fingerprint="")

    kept = scan(rows, [], keep=[0, 1]).kept

    assert kept == {row: Path(path).read_bytes() for row, path in enumerate(paths)}


def test_a_local_copy_needs_neither_datasets_nor_its_cache(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "set")
    code = (
        "import sys; from pathlib import Path\n"
        "from distillhub.data.sources import open_split, pin_source\n"
        "from distillhub.data.specs import SourceSpec\n"
        f"spec, sources = SourceSpec(id='me/set'), {{'me/set': Path({str(folder)!r})}}\n"
        "pin = pin_source(spec, sources, None)\n"
        "open_split(spec.model_copy(update={'pin': pin}), 'train', sources)\n"
        "sys.exit('datasets' in sys.modules)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}

    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)

    assert not (tmp_path / "home").exists()


def test_the_specs_are_light() -> None:
    code = (
        "import sys, distillhub.data.specs\n"
        "sys.exit(bool({'torch', 'numpy', 'PIL', 'pyarrow', 'datasets'} & set(sys.modules)))\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
