"""Existing weights, without a network: from files that the tests write, and from filled caches."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distillhub.errors import DataError, RecipeError, VerificationError
from distillhub.models import weights
from distillhub.models.specs import ModelSpec
from distillhub.models.tensorfile import file_digest
from distillhub.models.zoo import Classifier, build, find_weights, pretrained, seeded

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def from_file(arch: str, folder: Path, *, sha256: str | None = None) -> Classifier:
    spec = ModelSpec(arch=arch, weights="w.safetensors", sha256=sha256)
    return pretrained(spec, base=folder, input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)


def library_network(arch: str, classes: int) -> nn.Module:
    with seeded(1):
        library, _, name = arch.partition(":")
        if library == "timm":
            import timm

            tower: nn.Module = timm.create_model(name, num_classes=classes)
            return tower
        from torchvision.models import get_model

        body: nn.Module = get_model(name, num_classes=classes)
        return body


@pytest.mark.parametrize("arch", ["timm:resnet10t", "torchvision:shufflenet_v2_x0_5"])
def test_a_file_with_the_names_of_its_library_is_understood(arch: str, tmp_path: Path):
    body = library_network(arch, 7).eval()
    save_file(body.state_dict(), tmp_path / "w.safetensors")

    loaded = from_file(arch, tmp_path)

    torch.testing.assert_close(loaded.normalized(IMAGES), body(IMAGES))


def test_a_file_of_ours_says_size_and_normalisation_itself(tmp_path: Path):
    ours = build(
        "convnet2-w4", num_classes=3, channels=3, height=32, width=32,
        mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.1), seed=0, class_names=("a", "b", "c"),
    )  # fmt: skip
    weights.save(ours, tmp_path, "teacher", {})

    loaded = pretrained(
        ModelSpec(arch="convnet2-w4", weights=str(tmp_path / "teacher.safetensors"))
    )

    assert torch.equal(loaded(IMAGES), ours(IMAGES))
    assert (loaded.input_shape, loaded.class_names) == ((3, 32, 32), ("a", "b", "c"))


def test_kept_outputs_take_their_names_along(tmp_path: Path):
    ours = build(
        "mlp", num_classes=3, channels=3, height=32, width=32,
        mean=(0.5,) * 3, std=(0.5,) * 3, seed=0, class_names=("a", "b", "c"),
    )  # fmt: skip
    weights.save(ours, tmp_path, "teacher", {})
    spec = ModelSpec(arch="mlp", weights="teacher.safetensors")

    loaded = pretrained(spec, base=tmp_path, outputs=(2, 0))

    torch.testing.assert_close(loaded(IMAGES), ours(IMAGES)[:, [2, 0]])
    assert loaded.class_names == ("c", "a")


def test_a_file_that_does_not_say_needs_size_and_normalisation(tmp_path: Path):
    save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")

    with pytest.raises(RecipeError, match="say neither size nor normalisation"):
        pretrained(ModelSpec(arch="mlp", weights="w.safetensors"), base=tmp_path)


def test_the_pinned_digest_is_checked(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_file({"head.weight": torch.zeros(2, 2)}, path)

    with pytest.raises(VerificationError, match=file_digest(path)):
        from_file("mlp", tmp_path, sha256="0" * 64)


def test_weights_of_another_network_name_the_first_misfit(tmp_path: Path):
    save_file({"head.weight": torch.zeros(2, 128)}, tmp_path / "w.safetensors")

    with pytest.raises(DataError, match=r"5 tensors do not fit .* first is blocks\.1\.bias"):
        from_file("mlp", tmp_path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.safetensors: no such weights file"):
        pretrained(ModelSpec(arch="mlp", weights="gone.safetensors"), base=tmp_path)


def test_own_networks_have_no_published_weights():
    with pytest.raises(RecipeError, match="no published weights 'default'"):
        find_weights(ModelSpec(arch="convnet3", weights="default"))


@pytest.mark.parametrize(
    ("arch", "tag", "mend"),
    [
        ("timm:resnet18", "a1_in2k", "did you mean 'a1_in1k'"),
        ("torchvision:resnet18", "IMAGENET1K_V9", "did you mean 'IMAGENET1K_V1'"),
        ("torchvision:resnet1", "default", "did you mean 'resnet"),
    ],
)
def test_an_unknown_tag_is_answered_with_the_nearest(arch: str, tag: str, mend: str):
    with pytest.raises(RecipeError, match=mend):
        find_weights(ModelSpec(arch=arch, weights=tag))


def test_an_unknown_name_is_a_fault_of_the_recipe():
    with pytest.raises(RecipeError, match="no architecture 'resnet19'"):
        find_weights(ModelSpec(arch="resnet19", weights="default"))


def test_timm_weights_without_a_network_say_how_to_get_them():
    with pytest.raises(DataError, match="cannot be fetched") as caught:
        find_weights(ModelSpec(arch="timm:resnet18", weights="default"))

    assert "connect to the network once" in caught.value.faults[0].mend


def test_torchvision_weights_without_a_network_say_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)

    with pytest.raises(DataError, match="cannot be fetched: no route to host"):
        find_weights(ModelSpec(arch="torchvision:resnet18", weights="default"))


def test_torchvision_weights_in_the_cache_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from torchvision.models import ShuffleNet_V2_X0_5_Weights

    entry = ShuffleNet_V2_X0_5_Weights.DEFAULT
    body = library_network("torchvision:shufflenet_v2_x0_5", 1000).eval()
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    torch.save(body.state_dict(), checkpoints / entry.url.rpartition("/")[2])  # noqa: TID251
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    loaded = pretrained(ModelSpec(arch="torchvision:shufflenet_v2_x0_5", weights="default"))

    assert loaded.input_shape == (3, 224, 224)
    assert loaded.class_names is not None
    assert loaded.class_names[:2] == ("tench", "goldfish")
    torch.testing.assert_close(loaded.normalized(IMAGES), body(IMAGES))


def test_timm_weights_in_the_cache_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    body = library_network("timm:resnet10t", 1000).eval()
    save_file(body.state_dict(), tmp_path / "model.safetensors")
    asked: list[str] = []

    def cached(repo: str, name: str) -> str:
        asked.append(repo)
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", cached)

    loaded = pretrained(ModelSpec(arch="timm:resnet10t", weights="c3_in1k"))

    assert asked == ["timm/resnet10t.c3_in1k"]
    assert loaded.num_classes == 1000
    torch.testing.assert_close(loaded.normalized(IMAGES), body(IMAGES))


def test_the_logits_of_a_pretrained_network_do_not_move_the_global_generator(tmp_path: Path):
    save_file(library_network("timm:resnet10t", 4).state_dict(), tmp_path / "w.safetensors")
    before = torch.get_rng_state()

    from_file("timm:resnet10t", tmp_path)

    assert torch.equal(torch.get_rng_state(), before)
