"""Builds that rest on others, doped sets, and real images that are named instead of published."""

import contextlib
import shutil

import datasets
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from distillhub.data.codec import to_uint8
from distillhub.errors import DataError, RecipeError
from distillhub.packaging.verify import verify
from distillhub.pipeline.bases import chain
from distillhub.pipeline.building import build, place
from distillhub.pipeline.materializing import materialize
from distillhub.pipeline.project import Project
from distillhub.pipeline.resolve import resolve_recipe
from distillhub.pipeline.stages import run_stage
from distillhub.records.distilled import DistilledSet
from distillhub.records.report import loads
from distillhub_cli.main import app
from tests.integration.builds import Log, build_here, digest_of, write_recipe

BASE = """\
schema_version: 1
name: shapes-base
dataset: {id: ./shapes, test: 0.25}
ipc: 1
method: {name: dm, version: 1, iterations: 1, arch: convnet2-w4, batch_real: 4}
teacher: {arch: convnet2-w4, steps: 4}
relabel: {views: {}, count: 2, budget: 9.0}
card: {license: cc0-1.0}
"""
DOPED = """\
schema_version: 1
name: shapes-doped
dataset: {id: ./shapes, test: 0.25}
ipc: 4
method:
  name: doping
  version: 1
  base: base
  student: {protocol: smoke-cpu-1, arch: convnet2-w4}
teacher: {arch: convnet2-w4, steps: 4}
relabel: {views: {}, count: 2, budget: 9.0}
evaluate:
  - {protocol: smoke-cpu-1, students: [convnet2-w4], arms: [syn_hard, rnd_hard, syn_soft, rnd_soft],
     runs: 1}
card: {license: cc0-1.0, redistributable: "yes"}
"""
DM = "{name: dm, version: 1, iterations: 1, arch: convnet2-w4, batch_real: 4}"
IDM = "{name: idm, version: 1, iterations: 1, batch_real: 4, queue: {batch: 4, train_steps: 1}}"
NAMED = DOPED.replace("base: base", "base: base\n  publish: reference")
SIDE = 8


def shapes(folder, per_class: int = 12) -> None:
    """A folder of small pictures in each of two classes."""
    generator = torch.Generator().manual_seed(0)
    for number, label in enumerate(("circle", "square")):
        (folder / "shapes" / label).mkdir(parents=True)
        for picture in range(per_class):
            pixels = to_uint8((torch.rand(SIDE, SIDE, 3, generator=generator) + number) / 2)
            Image.fromarray(pixels.numpy()).save(folder / "shapes" / label / f"{picture}.png")


def doped_here(folder, text: str = DOPED, log: Log | None = None):
    """Both recipes and their pictures in a folder; the finished doped set."""
    if not (folder / "shapes").exists():
        shapes(folder)
    write_recipe(folder, BASE, "base")
    return build_here(write_recipe(folder, text, "doped"), log)


def space_of(folder) -> Project:
    return Project.at(folder / ".distillhub" / "workspace")


@pytest.fixture(scope="module")
def doped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doped")
    log = Log()
    return folder, doped_here(folder, log=log), log


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    return folder, doped_here(folder, NAMED)


def report_of(dataset):
    return loads((dataset / "eval.json").read_bytes())


# ---- a build that rests on another


def test_the_base_is_built_first_and_its_images_keep_their_bytes(doped):
    folder, dataset, log = doped
    base = DistilledSet.open(space_of(folder).artifacts("base") / "dataset")
    made = DistilledSet.open(dataset)

    assert log.stages[:6] == log.stages[6:]
    assert "doped rests on base" in log.notes
    first = [made.labels.tolist().index(label) for label in range(2)]
    assert made.source.files(first) == base.source.files([0, 1])


def test_the_total_is_ipc_per_class_and_the_card_tells_each_count(doped):
    _, dataset, _ = doped
    report, made = report_of(dataset), DistilledSet.open(dataset)

    assert len(made) == 8
    assert report.dataset.counts == made.counts
    assert (report.doping.kept, report.doping.doped) == (2, 6)
    assert report.privacy.real_pixel_share == 6 / 8
    text = (dataset / "README.md").read_text()
    assert "6 are real: 75.0 %" in text
    assert f"(kept) | 2 | {report.doping.sizes[0].recognised:.4g} |" in text


def test_a_doped_set_passes_its_own_verification(doped):
    assert verify(doped[1]).faults == ()


def test_wrong_numbers_of_a_doped_set_are_found(doped, tmp_path):
    copy = shutil.copytree(doped[1], tmp_path / "copy")
    text = (copy / "eval.json").read_text()
    (copy / "eval.json").write_text(text.replace('"kept": 2', '"kept": 3'))

    assert any("3 + 6 images, 8 are recorded" in fault.what for fault in verify(copy).faults)


def test_the_random_twin_has_as_many_images(doped):
    runs = {run.arm: run.train_images for run in report_of(doped[1]).runs}

    assert runs["syn_hard"] == runs["rnd_hard"] == runs["rnd_soft"] == 8


def test_a_second_build_makes_nothing_anew(doped):
    log = Log()
    doped_here(doped[0], log=log)

    assert log.stages == []


def test_the_digest_of_the_base_is_resolved_and_another_base_is_refused(tmp_path):
    doped_here(tmp_path)
    project = space_of(tmp_path)
    base = project.artifacts("base") / "dataset"
    text = project.resolved("doped").read_text()
    assert f"base: {digest_of(base)}" in text

    write_recipe(tmp_path, BASE.replace("iterations: 1", "iterations: 2"), "base")
    build_here(tmp_path / "base.yaml")

    with pytest.raises(DataError, match="doped was resolved with"):
        run_stage("synthesize", "doped", project, Log())


def test_a_new_base_makes_a_new_doped_set(tmp_path):
    before = digest_of(doped_here(tmp_path))
    log = Log()

    write_recipe(tmp_path, BASE.replace("iterations: 1", "iterations: 2"), "base")
    after = build_here(tmp_path / "doped.yaml", log)

    assert digest_of(after) != before
    assert log.stages.count("synthesize") == 2


def test_a_base_that_is_not_built_is_named_with_its_command(tmp_path):
    shapes(tmp_path)
    write_recipe(tmp_path, BASE, "base")
    recipe = write_recipe(tmp_path, DOPED, "doped")
    with contextlib.chdir(tmp_path):
        project = place(recipe, keep=False, replace=False, workspace=None)

    with pytest.raises(RecipeError, match="base base is not built") as caught:
        resolve_recipe(project.recipe("doped"), project)

    assert "distillhub build" in str(caught.value)


# ---- what cannot be built


@pytest.mark.parametrize(
    ("base", "doped", "sentence"),
    [
        (DOPED.replace("base: base", "base: doped"), DOPED, "circle: doped -> base -> doped"),
        (BASE, DOPED.replace("base: base", "base: doped"), "circle: doped -> doped"),
        (BASE, DOPED.replace("base: base", "base: none"), "there is no recipe 'none'"),
        (BASE, DOPED.replace("ipc: 4", "ipc: 10"), "ipc is 10 but class 'circle' has 9"),
        (BASE, DOPED.replace("ipc: 4", "ipc: 1"), "nothing to dope"),
        (BASE.replace("test: 0.25", "test: 0.5"), DOPED, "images of base base are"),
        (BASE.replace("test: 0.25", "test: 0.25, size: 4"), DOPED, "image size of base base are"),
        (
            BASE.replace("test: 0.25", "test: 0.25, classes: [square, circle]"),
            DOPED,
            "classes of base base are square x circle",
        ),
        (
            BASE.replace(DM, IDM),
            DOPED,
            "base base has mosaics of 2 x 2 images, and doping puts whole images beside them",
        ),
        (BASE.replace("cc0-1.0", "cc-by-nc-4.0"), DOPED, "published under cc-by-nc-4.0"),
        (BASE, DOPED.replace("smoke-cpu-1, arch", "smoke-9, arch"), "no protocol is called"),
        (BASE, NAMED.replace("card:", "images: {codec: jpeg}\ncard:"), "jpeg changes pixels"),
    ],
)
def test_a_base_that_does_not_fit_ends_in_exit_3_before_any_work(tmp_path, base, doped, sentence):
    shapes(tmp_path)
    write_recipe(tmp_path, base, "base")
    write_recipe(tmp_path, doped, "doped")

    with contextlib.chdir(tmp_path):
        result = CliRunner().invoke(app, ["build", "doped.yaml", "--direct"])

    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    assert sentence in " ".join(result.output.split())
    assert not list(tmp_path.rglob("artifacts/*/models"))


def test_a_chain_has_every_recipe_once_and_bases_first(tmp_path):
    write_recipe(tmp_path, BASE, "base")
    write_recipe(tmp_path, DOPED, "middle")
    schedule = "trigger: auto\n  schedule: [base, middle]"
    top = write_recipe(tmp_path, DOPED.replace("base: base", schedule), "top")

    assert [step.path.stem for step in chain(top)] == ["base", "middle", "top"]


# ---- by reference


def test_named_images_are_null_and_the_set_opens_with_load_dataset(named, tmp_path):
    rows = datasets.load_dataset(str(named[1]), split="train", cache_dir=str(tmp_path))

    empty = [image is None for image in rows["image"]]
    assert sum(empty) == 6
    assert empty == [name is not None for name in rows["source_file"]]
    assert all(name.endswith(".png") for name in rows["source_file"] if name is not None)
    assert verify(named[1]).faults == ()


def test_a_set_is_scored_alike_with_named_and_with_stored_images(doped, named):
    pixels, names = ({r.id: r.top1 for r in report_of(d).runs} for d in (doped[1], named[1]))

    assert pixels == names
    assert report_of(named[1]).privacy.real_pixel_share == 0


def test_training_on_missing_pixels_tells_the_mend(named):
    opened = DistilledSet.open(named[1])

    with pytest.raises(DataError, match="it names a real one") as caught:
        opened.pixels(range(len(opened)))
    assert "materialize" in str(caught.value)


def test_materialize_gives_the_pixels_of_the_stored_set(doped, named, tmp_path):
    with contextlib.chdir(tmp_path):
        words = ["materialize", str(named[1]), "--source", str(named[0] / "shapes"), "--out", "out"]
        result = CliRunner().invoke(app, words)

    assert result.exit_code == 0, result.output
    whole = tmp_path / "out"
    assert verify(whole).faults == ()
    first, second = (DistilledSet.open(folder) for folder in (doped[1], whole))
    assert torch.equal(first.pixels(range(8)), second.pixels(range(8)))
    assert torch.equal(first.soft.values, second.soft.values)
    block = report_of(whole).reference
    assert (block.rows, block.materialized_from) == (6, digest_of(named[1]))
    assert report_of(whole).privacy.real_pixel_share == 6 / 8


def test_a_copy_with_other_names_and_another_order_serves_too(named, tmp_path):
    shutil.copytree(named[0] / "shapes", tmp_path / "copy")
    for path in sorted((tmp_path / "copy").rglob("*.png")):
        path.rename(path.with_name(f"{99 - int(path.stem)}-renamed.png"))

    done = materialize(named[1], source=str(tmp_path / "copy"), out=tmp_path / "out", sources={})

    assert done.images == 6
    assert verify(done.folder).faults == ()


def test_missing_and_other_images_are_named_and_nothing_is_written(named, tmp_path):
    shutil.copytree(named[0] / "shapes", tmp_path / "copy")
    rows = datasets.load_dataset(str(named[1]), split="train", cache_dir=str(tmp_path / "cache"))
    gone, changed = [name for name in rows["source_file"] if name is not None][:2]
    shapes_in = {path.name: path for path in (tmp_path / "copy").rglob("*.png")}
    for name in (gone, changed):
        (path,) = [p for p in (tmp_path / "copy").rglob("*.png") if str(p).endswith(name[-12:])]
        shapes_in[name] = path
    shapes_in[gone].unlink()
    Image.new("RGB", (SIDE, SIDE)).save(shapes_in[changed])

    with pytest.raises(DataError) as caught:
        materialize(named[1], source=str(tmp_path / "copy"), out=tmp_path / "out", sources={})

    assert {fault.where for fault in caught.value.faults} == {gone, changed}
    assert not (tmp_path / "out").exists()


def test_a_pixel_changed_after_materialize_is_found(named, tmp_path):
    done = materialize(named[1], source=str(named[0] / "shapes"), out=tmp_path / "out", sources={})
    text = (done.folder / "eval.json").read_text()
    (done.folder / "eval.json").write_text(text.replace('"rows": 6', '"rows": 5'))

    assert any("6 rows name a real image" in fault.what for fault in verify(done.folder).faults)


def test_a_set_without_named_images_has_nothing_to_fill_in(doped):
    result = CliRunner().invoke(app, ["materialize", str(doped[1])])

    assert result.exit_code == 2
    assert "names no images" in result.output


def test_a_build_in_another_workspace_finds_its_base(tmp_path):
    shapes(tmp_path)
    write_recipe(tmp_path, BASE, "base")
    text = DOPED.replace("evaluate:", "evaluate: []\n_: [").split("_: [")[0]
    recipe = write_recipe(tmp_path, f"{text}card: {{license: cc0-1.0}}\n", "doped")

    with contextlib.chdir(tmp_path):
        dataset = build(recipe, reporter=Log(), direct=True, workspace=tmp_path / "elsewhere")

    assert dataset.is_relative_to(tmp_path / "elsewhere")
    assert (space_of(tmp_path).artifacts("base") / "dataset").is_dir()
