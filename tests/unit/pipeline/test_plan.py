"""What a plan foretells, against hand-worked numbers and published ones."""

import socket
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from distillhub.pipeline.devices import DEVICES
from distillhub.pipeline.plan import Plan, bytes_per_view, foretell_labels, make_plan
from distillhub.pipeline.pricing import LOOK, Pricing, Task
from distillhub.pipeline.project import Project
from distillhub.pipeline.rates import KEPT, PROBE_FLOPS, Rate, Rates
from distillhub.pipeline.resolve import resolve
from distillhub.pipeline.standins import count_flops
from distillhub.recipe.loading import load_recipe
from distillhub.recipe.schema import ResolvedRecipe
from distillhub.relabel.spec import RelabelSpec, ViewSpec

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
CPU = torch.device("cpu")


def plan_of(stem: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A shipped recipe, planned where nothing was built and nothing can be asked."""

    def refuse(*_: object) -> None:
        raise AssertionError("a plan that asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (root / "distillhub.toml").write_text("", encoding="utf-8")
    (root / "recipes").symlink_to(RECIPES)
    project = Project.at(root)
    return make_plan(project.recipe(stem), project, startup=0.0)


def test_a_whole_image_label_of_ten_classes_is_float16_logits():
    assert bytes_per_view(RelabelSpec(), 10) == pytest.approx(0.92 * 20)


def test_views_of_ten_classes_are_uint8_logits_with_range_and_crop():
    assert bytes_per_view(RelabelSpec(views=ViewSpec()), 10) == pytest.approx(0.88 * 14 + 3)


@pytest.mark.parametrize(("top_k", "measured"), [(50, 101), (10, 28)])
def test_top_labels_of_a_thousand_classes_are_near_the_measured_bytes(top_k, measured):
    spec = RelabelSpec(views=ViewSpec(), top_k=top_k)

    assert bytes_per_view(spec, 1000) - 3 == pytest.approx(measured, rel=0.1)


def test_the_flagship_is_planned_without_data_or_network(tmp_path, monkeypatch):
    made = plan_of("dsco_in1k_700", tmp_path, monkeypatch)

    assert (made.images, made.units) == (700_000, 1)
    assert [(base.recipe, base.images, base.built) for base in made.bases] == [
        ("dsco_in1k_50", 50_000, False)
    ]
    assert "published facts" in made.bytes_basis
    # Real images go without pixels: 50 of 700 are stored, at 89 kB per 224 x 224 pixels.
    assert made.bytes_images == pytest.approx(50_000 * 89e3 * 256**2 / 224**2, rel=1e-6)


@pytest.mark.parametrize("stem", ["bacon_cifar10_1", "idm_digits_1"])
def test_a_recipe_without_networks_is_planned(stem, tmp_path, monkeypatch):
    made = plan_of(stem, tmp_path, monkeypatch)

    (models,) = (stage for stage in made.stages if stage.name == "models")
    assert models.parts == ()
    assert models.basis == "start-up of a process"


def test_batches_that_start_from_another_build_are_units_of_their_own(tmp_path, monkeypatch):
    made = plan_of("edc_in1k_10", tmp_path, monkeypatch)

    assert (made.images, made.units) == (10_000, 125)  # batches of 80 images
    assert made.disk > 10_000 * 3 * 224 * 224 * 4


def test_every_device_says_where_its_speed_is_from(tmp_path, monkeypatch):
    made = plan_of("dsco_in1k_700", tmp_path, monkeypatch)

    assert [device.name for device in made.devices[1:]] == [kind.name for kind in DEVICES]
    assert "Table 12" in made.devices[2].source
    assert all(device.source and device.seconds_bases > 0 for device in made.devices)


def test_the_synthesis_costs_what_the_paper_counts(tmp_path, monkeypatch):
    made = plan_of("dsco_in1k_50", tmp_path, monkeypatch)

    (stage,) = (stage for stage in made.stages if stage.name == "synthesize")
    counted = {part.work.split()[1].strip(","): part.flops / 1e12 for part in stage.parts}
    # Per class, arXiv 2603.27987: DiT 1187, NOpt 216, decode 31; targets 70 and encode 355 at 1300
    # real images, of which a class has 1281 on average. The last layer of the projector, 28 % of
    # its work, is folded into 2 % of that (`targets`, `nopt`).
    assert counted["generator"] == pytest.approx(1187e3, rel=0.01)
    assert counted["decode"] == pytest.approx(31.1e3, rel=0.01)
    assert counted["encode"] == pytest.approx(355e3 * 1281 / 1300, rel=0.01)
    assert 0.7 * 216e3 < counted["nopt"] < 216e3
    assert 0.7 * 70e3 < counted["targets"] < 70e3


def test_a_plan_of_imagenet_tries_no_large_network(tmp_path, monkeypatch):
    made = plan_of("dsco_in1k_700", tmp_path, monkeypatch)

    assert not [stage.name for stage in made.stages if "timed here" in stage.basis]


def test_small_generators_and_students_are_timed(tmp_path, monkeypatch):
    made = plan_of("dsco_digits_3", tmp_path, monkeypatch)

    bases = {part.basis.partition(",")[0] for stage in made.stages for part in stage.parts}
    assert bases <= {"timed here", "fixed", ""}
    parts = [part.work for stage in made.stages for part in stage.parts]
    assert any("train generator" in work for work in parts)
    assert any("nopt" in work for work in parts)


def test_flops_of_a_network_are_two_per_multiply_add():
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 25, 10))

    # 25 places x 4 channels x 2 x 9 weights, and 100 x 10.
    assert count_flops(net, torch.zeros(1, 2, 5, 5)) == 2 * (25 * 4 * 18 + 1000)


def test_a_batch_that_is_too_large_is_timed_in_part(tmp_path):
    rates = Rates(CPU, tmp_path / "rates.json")
    rows = []

    def prepare(count):
        rows.append(count)
        return lambda: None

    rate = rates.scaled("x", 100, PROBE_FLOPS["cpu"] / 10, prepare)

    assert rows == [10]
    assert rate.basis == "timed here, scaled"


def test_a_step_that_is_too_large_goes_by_its_flops(tmp_path):
    rates = Rates(CPU, tmp_path / "rates.json")

    rate = rates.scaled("x", 100, PROBE_FLOPS["cpu"], lambda _: pytest.fail("it was tried"))

    assert rate.seconds == pytest.approx(100 * PROBE_FLOPS["cpu"] / rates.speed("convolution"))
    assert rate.basis.startswith("FLOPs at")


def test_what_was_timed_is_kept_for_a_day(tmp_path, monkeypatch):
    first = Rates(CPU, tmp_path / "rates.json")
    known = first.timed("x", 1.0, lambda: lambda: None)
    first.save()

    later = Rates(CPU, tmp_path / "rates.json")
    assert later.timed("x", 1.0, lambda: pytest.fail("it was timed again")) == known
    tomorrow = time.time() + KEPT + 1
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    tried = []
    Rates(CPU, tmp_path / "rates.json").timed("x", 1.0, lambda: lambda: tried.append(1))
    assert tried


def test_hours_of_a_device_are_its_flops_or_the_starts_of_its_kernels():
    kind = DEVICES[0]
    large = Task("synthesize", "x", 10, 1e15, Rate(1.0, ""), "transformer")
    small = large._replace(flops=1.0, kernels=50)

    assert kind.seconds([large]) == pytest.approx(10 * 1e15 / (0.4 * 989e12))
    assert kind.seconds([small]) == pytest.approx(10 * 50 * 6e-6)


MOSAICS = """\
schema_version: 1
name: mosaics
dataset: {id: "sklearn:digits"}
ipc: 3
method:
  name: idm
  version: 1
  iterations: 60
  batch_real: 16
  queue: {arch: convnet2-w4, batch: 32, train_steps: 3, fetch: 2}
teacher: {arch: convnet2-w4, steps: 5}
relabel: {views: {}, count: 2, budget: 9.0}
evaluate:
  - {protocol: smoke-cpu-1, students: [convnet2-w4], runs: 2,
     arms: [syn_hard, rnd_hard, rnd_packed_hard, syn_soft, rnd_soft, rnd_packed_soft]}
card: {license: cc-by-4.0}
"""


class Untimed(Rates):
    """Knows work, not seconds."""

    def scaled(self, *_: object, **__: object) -> Rate:
        return Rate(0.0, "")


@pytest.fixture(scope="module")
def mosaic_recipe(tmp_path_factory) -> tuple[ResolvedRecipe, Path]:
    """A recipe of mosaics and its file."""
    root = tmp_path_factory.mktemp("mosaics")
    (root / "distillhub.toml").write_text("", encoding="utf-8")
    (root / "recipes").mkdir()
    path = root / "recipes" / "mosaics.yaml"
    path.write_text(MOSAICS, encoding="utf-8")
    return resolve(load_recipe(path), path, Project.at(root), None), path


@pytest.fixture(scope="module")
def mosaics(mosaic_recipe) -> list[Task]:
    """The tasks of its build; nothing is timed."""
    recipe, path = mosaic_recipe
    views, _ = foretell_labels(recipe, 1000)
    rates = Untimed(CPU, path.with_name("rates.json"))
    return list(Pricing(recipe, path, rates, path.parent, views, ()).tasks())


def test_a_student_of_mosaics_is_priced_by_their_sub_images(mosaics):
    runs = {t.work: t for t in mosaics if " runs of " in t.work}

    # 20 epochs of batches of 64: 120 sub-images give 40 steps, 30 whole images 20.
    assert {work.partition(" of ")[0] + work[-10:]: task.calls for work, task in runs.items()} == {
        "4 hard runs, 40 steps": 160,
        "2 hard runs, 20 steps": 40,
        "4 soft_stored runs, 40 steps": 160,
        "2 soft_stored runs, 20 steps": 40,
    }


def test_labels_of_mosaics_are_priced_by_their_sub_images(mosaics):
    looked = {t.work: t.calls * LOOK for t in mosaics if "view" in t.work or "twins" in t.work}

    assert "240 views" in looked  # 30 images x 4 sub-images x 2 views
    (twins,) = (images for work, images in looked.items() if "twins" in work)
    assert twins == pytest.approx(2 * 60 + 2 * 240)


def test_labels_of_mosaics_take_the_bytes_of_their_sub_images(mosaic_recipe):
    recipe, _ = mosaic_recipe
    each = bytes_per_view(recipe.relabel, 10)
    filled = recipe.relabel.model_copy(update={"count": "auto"})

    assert foretell_labels(recipe, 1000) == (8, round(240 * each))
    # A budget for three views of each of the 120 sub-images, and half a view on top.
    budget = {"relabel": filled.model_copy(update={"budget": 3.5 * 120 * each / 1000})}
    views, label_bytes = foretell_labels(recipe.model_copy(update=budget), 1000)
    assert (views, label_bytes) == (12, round(3 * 120 * each))


def test_the_disk_of_a_plan_holds_the_networks_of_the_queue(mosaic_recipe, monkeypatch):
    recipe, path = mosaic_recipe
    monkeypatch.setattr("distillhub.pipeline.plan.Rates", Untimed)
    method = recipe.method
    cost = method.cost(recipe.target, recipe.dataset.pinned.counts)
    with_queue = make_plan(path, Project.at(path.parents[1]), startup=0.0)
    bare = cost._replace(trained=None)
    monkeypatch.setattr(type(method), "cost", lambda *_: bare)
    without = make_plan(path, Project.at(path.parents[1]), startup=0.0)

    # Two blocks of 3 x 3 convolutions with instance norm; the first pads grey images by 3, so 8 x 8
    # pixels become 12 x 12, 6 x 6 and 3 x 3: 36 features to ten classes.
    parameters = (1 * 9 + 1 + 2) * 4 + (4 * 9 + 1 + 2) * 4 + (36 + 1) * 10
    # 60 iterations make 100 draws; 3 networks at first and 2 more, each with its momentum.
    assert with_queue.disk - without.disk == 4 * parameters * (100 + 2 * 5)


def test_the_queue_is_priced_once_in_whole_segments(mosaics):
    (queue,) = (t for t in mosaics if "queue of networks" in t.work)
    (matching,) = (t for t in mosaics if t.work == "idm, 60 steps forward and back")

    assert queue.calls == 100 * 2 * 3
    assert queue.work.endswith("shared")
    assert queue.flops / matching.flops == pytest.approx(32 / 120)
