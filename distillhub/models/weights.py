"""A trained network on disk: `<stem>.safetensors`, and `<stem>.json` that says what it is."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue, ValidationError

from distillhub.errors import DataError, VerificationError
from distillhub.models.classifier import Classifier
from distillhub.models.specs import FileFacts, NetworkSpec
from distillhub.models.tensorfile import file_digest, fill, read_tensors, write_bytes, write_tensors
from distillhub.models.zoo import build


class WeightsRecord(FileFacts):
    """What a weights file is; JSON beside it."""

    spec: NetworkSpec | None = None
    """How the network came about."""
    top1: float | None = None
    """Accuracy on the held-out part of the training split, as a fraction; None: not measured."""
    steps: int | None = None
    """Optimizer steps taken; None for pretrained networks."""
    sha256: str
    """Of the safetensors file."""


def save(
    classifier: Classifier, folder: Path, stem: str, record: Mapping[str, JsonValue]
) -> WeightsRecord:
    """Write the weights and their record; the same network gives the same bytes.

    Args:
        classifier: Its `net` is stored, in float32 as it is.
        folder: Made where needed.
        stem: File name without suffix: "teacher", "observer-0".
        record: `spec`, `top1` and `steps` of `WeightsRecord`, as far as they are known.

    Raises:
        StorageError: If the folder cannot be written.
    """
    facts = _facts(classifier)
    header = facts.model_dump(mode="json")
    digest = write_tensors(folder / f"{stem}.safetensors", classifier.net.state_dict(), header)
    written = WeightsRecord.model_validate({**header, **record, "sha256": digest})
    text = json.dumps(written.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
    write_bytes(folder / f"{stem}.json", f"{text}\n".encode())
    return written


def read_record(folder: Path, stem: str) -> WeightsRecord:
    """The record of a saved network; its weights are not read.

    Raises:
        DataError: If there is none, or it is not one of ours.
    """
    path = folder / f"{stem}.json"
    try:
        return WeightsRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            mend="run the models stage",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"not the record of a network: {key}: {first['msg']}",
            where=str(path),
            mend="run the models stage again",
        ) from error


def load(folder: Path, stem: str) -> Classifier:
    """A saved network, frozen, on the CPU.

    Raises:
        DataError: If a file is missing or unreadable.
        VerificationError: If the weights are not those of the record.
    """
    record = read_record(folder, stem)
    path = folder / f"{stem}.safetensors"
    found = file_digest(path)
    if found != record.sha256:
        raise VerificationError(
            f"the weights have sha256 {found}, the record says {record.sha256}",
            where=str(path),
            mend="fetch or train the network again",
        )
    classifier = build(
        record.arch,
        num_classes=record.num_classes,
        channels=record.channels,
        height=record.height,
        width=record.width,
        mean=record.mean,
        std=record.std,
        seed=0,
        class_names=record.class_names,
    )
    tensors, _ = read_tensors(path)
    fill(classifier.net, tensors, where=str(path))
    return classifier.freeze()


def _facts(classifier: Classifier) -> FileFacts:
    channels, height, width = classifier.input_shape
    return FileFacts(
        arch=classifier.arch,
        num_classes=classifier.num_classes,
        channels=channels,
        height=height,
        width=width,
        mean=classifier.mean_values,
        std=classifier.std_values,
        class_names=classifier.class_names,
    )
