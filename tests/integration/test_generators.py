"""Recipes with a generator, trained here or a local checkpoint, and what may be wrong with them."""

import contextlib
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distillhub.models.diffusion import build_transformer
from distillhub.models.diffusion_files import build_vae
from distillhub.models.specs import VaeTrainSpec
from distillhub.models.zoo import seeded
from distillhub.pipeline.checkpoint import Interrupted
from distillhub_cli.main import app
from tests.integration.builds import Log, build_here, digest_of
from tests.made_up import shapes_folder

RECIPE = """\
schema_version: 1
name: shapes-dit
dataset: {{id: ./shapes, test: 0.25, size: 16}}
ipc: 2
method: {{name: dit, version: 1, steps: 3, cfg: 2.0}}
generator: {generator}
evaluate:
  - {{protocol: smoke-cpu-1, students: [convnet2-w8], arms: [syn_hard], runs: 1}}
card: {{license: {license}}}
"""
TRAINED = "{arch: dit-w16-d1-h2-p4, steps: 4, batch: 8}"
LOCAL = "{transformer: ./dit, vae: ./dit, scaling: 0.5, classes: [4, 0, 2], license: cc-by-nc-4.0}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for 16 x 16 images in colour, of five classes."""
    folder = tmp_path_factory.mktemp("checkpoint")
    net = build_transformer(
        "dit-w16-d1-h2-p2", num_classes=5, channels=4, height=8, width=8, seed=0
    )
    net.save_pretrained(folder / "transformer")
    with seeded(0):
        build_vae(VaeTrainSpec(channels=4, widths=(8, 16)), 3).save_pretrained(folder / "vae")
        build_vae(VaeTrainSpec(channels=3, widths=(8, 16)), 3).save_pretrained(folder / "other/vae")
    return folder


@pytest.fixture
def folder(tmp_path: Path, checkpoint: Path) -> Path:
    shapes_folder(tmp_path / "shapes", per_class=8, side=16)
    (tmp_path / "dit").symlink_to(checkpoint)
    return tmp_path


def written(folder: Path, generator: str, card: str = "cc0-1.0") -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(generator=generator, license=card), encoding="utf-8")
    return path


def command(folder: Path, generator: str, card: str = "cc0-1.0"):
    recipe = written(folder, generator, card)
    with contextlib.chdir(folder):
        return CliRunner().invoke(app, ["build", recipe.name, "--direct"])


def test_a_generator_trained_here_makes_a_set_whose_card_says_so(folder):
    dataset = build_here(written(folder, TRAINED))

    report = json.loads((dataset / "eval.json").read_text())
    made_by = report["method"]["generator"]
    manifest = json.loads((dataset / "manifest.json").read_text())
    assert made_by["id"] == "dit-w16-d1-h2-p4"
    assert manifest["content"]["weights"]["generator"] == made_by["sha256"]
    assert report["privacy"]["real_pixel_share"] == 0
    assert "trained here on the source alone" in (dataset / "README.md").read_text()


class Impatient(Log):
    """Asks the build to stop at the second step of some work."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label

    def progress(self, label: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if label.startswith(self.label) and done == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("label", ["train generator", "dit class"])
def test_a_build_that_was_stopped_goes_on_to_the_same_set(folder, label):
    whole = digest_of(build_here(written(folder, TRAINED), folder=folder))
    (folder / "again").mkdir()
    (folder / "again" / "shapes").symlink_to(folder / "shapes")
    recipe = written(folder / "again", TRAINED)
    with pytest.raises(Interrupted, match="step 2"):
        build_here(recipe, Impatient(label), folder=folder / "again")
    log = Log()

    digest = digest_of(build_here(recipe, log, folder=folder / "again"))

    assert any("resumed at step 2" in note for note in log.notes)
    assert digest == whole


def test_a_local_checkpoint_makes_a_set_under_its_license(folder):
    dataset = build_here(written(folder, LOCAL, "cc-by-nc-4.0"))

    report = json.loads((dataset / "eval.json").read_text())
    card, resolved = ((dataset / n).read_text() for n in ("README.md", "recipe/resolved.yaml"))
    assert report["method"]["generator"]["license"] == "cc-by-nc-4.0"
    assert report["method"]["generator"]["id"] == "dit"
    assert "whose weights are under cc-by-nc-4.0" in card
    assert "transformer_sha256: " in resolved
    assert str(folder) not in card


@pytest.mark.parametrize(
    ("generator", "card", "code", "sentence"),
    [
        ("{arch: dit-w16-d1-h2-p3}", "cc0-1.0", 3, "a patch of 3 does not divide the side 16"),
        ("{arch: convnet3}", "cc0-1.0", 3, "'convnet3' is no diffusion transformer"),
        ("{arch: dit-w16-d1-h2-p2, stepz: 3}", "cc0-1.0", 3, "did you mean 'steps'"),
        ("{arch: dit-w16-d1-h2-p2, label_dropout: 0}", "cc0-1.0", 3, "no image without one"),
        ("null", "cc0-1.0", 3, "method dit needs a generator: block"),
        (LOCAL.replace("[4, 0, 2]", "auto"), "cc-by-nc-4.0", 3, "no known label of the generator"),
        (LOCAL.replace("[4, 0, 2]", "[4, 0]"), "cc-by-nc-4.0", 3, "2 labels for 3 classes"),
        (LOCAL.replace("[4, 0, 2]", "[4, 0, 5]"), "cc-by-nc-4.0", 3, "has no label 5"),
        (LOCAL.replace("vae: ./dit", "vae: ./dit/other"), "cc-by-nc-4.0", 3, "into (3, 8, 8)"),
        (LOCAL.replace("vae: ./dit", "vae: null"), "cc-by-nc-4.0", 3, "without an autoencoder"),
        (LOCAL, "cc0-1.0", 3, "which allows commercial use"),
        (LOCAL.replace(", license: cc-by-nc-4.0", ""), "cc0-1.0", 3, "is not known here"),
        (LOCAL.replace("./dit,", "./nowhere,", 1), "cc-by-nc-4.0", 3, "no config.json"),
        (
            "{transformer: facebook/DiT-XL-2-256, classes: [0, 1, 2]}",
            "cc-by-nc-4.0",
            3,
            "the transformer's latents are (4, 32, 32)",
        ),
        (
            "{transformer: some/dit, license: mit, classes: [0, 1, 2]}",
            "cc0-1.0",
            4,
            "cannot be fetched",
        ),
    ],
)
def test_bad_generators_are_told_with_a_mend(folder, generator, card, code, sentence):
    result = command(folder, generator, card)

    text = " ".join(result.output.replace("│", " ").split())
    assert result.exit_code == code, text
    assert sentence in text
    assert "Traceback" not in text
    made = list((folder / ".distillhub").rglob("generator.json"))
    assert made == []
