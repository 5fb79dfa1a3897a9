import hashlib
import json
from pathlib import Path

import pytest
import torch

from distillhub.errors import DataError, StorageError, VerificationError
from distillhub.models.specs import TrainSpec
from distillhub.models.tensorfile import read_tensors, write_tensors
from distillhub.models.weights import load, read_record, save
from distillhub.models.zoo import Classifier, build

SPEC = TrainSpec(arch="convnet2-w4-bn", steps=5)


def classifier(seed: int = 0) -> Classifier:
    return build(
        SPEC.arch, num_classes=2, channels=1, height=8, width=8,
        mean=(0.1307,), std=(0.3081,), seed=seed, class_names=("a", "b"),
    )  # fmt: skip


def saved(folder: Path) -> Classifier:
    network = classifier()
    save(
        network, folder, "teacher", {"spec": SPEC.model_dump(mode="json"), "top1": 0.5, "steps": 5}
    )
    return network


def test_a_loaded_network_gives_the_same_logits(tmp_path: Path):
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network = saved(tmp_path).eval()

    loaded = load(tmp_path, "teacher")

    assert torch.equal(loaded(images), network(images))


def test_the_record_says_what_the_network_is(tmp_path: Path):
    saved(tmp_path)

    record = read_record(tmp_path, "teacher")

    assert (record.arch, record.top1, record.steps, record.spec) == (SPEC.arch, 0.5, 5, SPEC)
    assert (record.mean, record.class_names) == ((0.1307,), ("a", "b"))


def test_the_record_holds_the_digest_of_the_file(tmp_path: Path):
    saved(tmp_path)

    digest = hashlib.sha256((tmp_path / "teacher.safetensors").read_bytes()).hexdigest()

    assert read_record(tmp_path, "teacher").sha256 == digest


def test_the_same_network_gives_the_same_bytes(tmp_path: Path):
    for folder in ("first", "second"):
        saved(tmp_path / folder)

    for name in ("teacher.safetensors", "teacher.json"):
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("first", "second"))
        assert first == second


def test_the_order_and_layout_of_tensors_do_not_change_the_bytes(tmp_path: Path):
    maps = torch.arange(48.0).view(1, 3, 4, 4)
    forward = write_tensors(tmp_path / "a", {"x": maps, "y": maps[0]}, {"k": 1})

    strided = maps.contiguous(memory_format=torch.channels_last)
    backward = write_tensors(tmp_path / "b", {"y": strided[0], "x": strided}, {"k": 1})

    assert forward == backward


def test_nothing_but_the_two_files_is_left(tmp_path: Path):
    saved(tmp_path)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["teacher.json", "teacher.safetensors"]


def test_exchanged_weights_are_found_out(tmp_path: Path):
    saved(tmp_path)
    write_tensors(tmp_path / "teacher.safetensors", classifier(1).net.state_dict(), {})

    with pytest.raises(VerificationError, match=r"have sha256 [0-9a-f]{64}, the record says"):
        load(tmp_path, "teacher")


def test_a_missing_network_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match=r"teacher\.json: cannot be read"):
        load(tmp_path, "teacher")


def test_a_foreign_record_names_its_first_wrong_key(tmp_path: Path):
    (tmp_path / "teacher.json").write_text(json.dumps({"arch": "mlp"}))

    with pytest.raises(DataError, match="not the record of a network: num_classes"):
        read_record(tmp_path, "teacher")


def test_a_file_cut_short_is_a_data_error(tmp_path: Path):
    saved(tmp_path)
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(path.read_bytes()[:-4])

    with pytest.raises(DataError, match="not a whole safetensors file"):
        read_tensors(path)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError, match="cannot be written"):
        saved(tmp_path / "file" / "folder")
