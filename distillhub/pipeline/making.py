"""The stages that make a distilled set: models, synthesize, relabel, package.

Each is a function of its recipe blocks and a `StageRun`; it writes one folder, once, at its end.
"""

import functools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import JsonValue
from torch import Tensor

from distillhub.data import codec
from distillhub.data.sources import RealData, open_split
from distillhub.data.specs import ImageFormat, SourceSpec
from distillhub.digests import fingerprint
from distillhub.errors import DivergedError, PipelineError, RecipeError
from distillhub.methods._base import Assembly, Method, Synthesis
from distillhub.models import training, weights
from distillhub.models.specs import GeneratorSpec, ModelSpec, NetworkSpec, TrainSpec
from distillhub.models.zoo import Classifier, pretrained
from distillhub.ops.formation import APART
from distillhub.packaging import parquet
from distillhub.packaging.specs import PackageSpec
from distillhub.pipeline.bases import opened_bases, real_share
from distillhub.pipeline.checkpoint import drive, load_tensors, save_tensors
from distillhub.pipeline.chunks import encoded, kept_tensors, numbered
from distillhub.pipeline.files import replaced_folder, write_json
from distillhub.pipeline.generators import make_generator
from distillhub.pipeline.heads import checked_top1, outputs_of, refuse_other_images
from distillhub.pipeline.naming import named_images
from distillhub.pipeline.project import WEIGHTS
from distillhub.pipeline.run import StageRun
from distillhub.pipeline.store import stored
from distillhub.pipeline.versions import CODE
from distillhub.pipeline.workbench import PipelineBench
from distillhub.records.references import Reference
from distillhub.relabel.files import read_labels, write_labels
from distillhub.relabel.label import Labels
from distillhub.relabel.label import relabel as make_labels
from distillhub.relabel.spec import RelabelSpec, labelling_roles
from distillhub.units import Slot, Target, WorkUnit, derive_seed

IMAGES = "images.parquet"
RECORD = "record.json"
"""What a method tells of its images; absent where it tells nothing."""
TOLD = "told"
"""Key of the same in the file of a finished chunk."""


def training_key(dataset: SourceSpec) -> dict[str, object]:
    """What of a data set its training images depend on; the key of everything made from them."""
    pin = dataset.pinned
    return {
        "train": pin.train.sha256,
        "classes": pin.class_names,
        "shape": (pin.channels, pin.height, pin.width),
        "resize": dataset.resize,
        "test": dataset.test if isinstance(dataset.test, float) else None,
        "holdout": dataset.holdout,
        "normalize": (pin.mean, pin.std),
    }


# ---- models


def models(
    run: StageRun,
    *,
    dataset: SourceSpec,
    teacher: NetworkSpec | None,
    observers: tuple[NetworkSpec, ...],
    generator: GeneratorSpec | None,
) -> None:
    """Train or fetch the networks of a recipe.

    Those that another recipe trained already are taken from the store.
    """
    roles = {f"observer-{i}": spec for i, spec in enumerate(observers)}
    if teacher is not None:
        roles = {"teacher": teacher, **roles}
    wanted = roles or generator is not None
    data = open_split(dataset, "train", run.project.sources_for(dataset)) if wanted else None
    index: dict[str, object] = {}
    with replaced_folder(run.project.artifacts(run.stem) / "models") as out:
        for role, spec in roles.items():
            if data is None:
                raise AssertionError("roles without data")
            key = fingerprint(spec.model_dump(mode="json"), training_key(dataset), CODE["models"])

            def build(
                folder: Path, spec: NetworkSpec = spec, role: str = role, data: RealData = data
            ) -> None:
                _make_network(run, role, spec, data, folder)

            folder = stored(
                run.project.state / "models",
                key,
                build,
                functools.partial(run.reporter.note, f"{role}: another build makes it"),
            )
            for suffix in (".safetensors", ".json"):
                shutil.copyfile(folder / f"network{suffix}", out / f"{role}{suffix}")
            record = weights.read_record(out, role)
            index[role] = {"sha256": record.sha256, "arch": record.arch, "top1": record.top1}
        if generator is not None and data is not None:
            index["generator"] = make_generator(run, generator, data, training_key(dataset), out)
        write_json(out / "models.json", index)


def _make_network(
    run: StageRun, role: str, spec: NetworkSpec, data: RealData, folder: Path
) -> None:
    if isinstance(spec, TrainSpec):
        trained = drive(
            lambda state: training.train(
                spec, data.fit, data.held_out, device=run.device, state=state
            ),
            label=f"train {role} ({spec.arch})",
            checkpoint=run.work.checkpoint(role),
            reporter=run.reporter,
            stop=run.stop,
        )
        classifier, top1, steps = trained.classifier, trained.top1, trained.steps
    else:
        with _about(role):
            classifier, steps = _fetch(run, spec, data).to(run.device), None
            seen = training.predict(classifier, data.held_out, device=run.device)
            top1 = checked_top1(spec, seen, data.held_out.labels, data.class_names)
    record = {"spec": spec.model_dump(mode="json"), "top1": top1, "steps": steps}
    weights.save(classifier.cpu(), folder, "network", record)


def _fetch(run: StageRun, spec: ModelSpec, data: RealData) -> Classifier:
    """A network with existing weights, its outputs in the order of the data set's classes."""
    shape = (data.channels, data.height, data.width)
    base = run.project.state / WEIGHTS
    mean, std = data.mean, data.std
    classifier = pretrained(spec, base=base, input_shape=shape, mean=mean, std=std)
    refuse_other_images(spec, classifier.input_shape, shape)
    outputs = outputs_of(spec, classifier.class_names, classifier.num_classes, data.class_names)
    if outputs is None:
        return classifier
    classifier = pretrained(spec, base=base, input_shape=shape, mean=mean, std=std, outputs=outputs)
    classifier.class_names = data.class_names
    return classifier


@contextmanager
def _about(role: str) -> Iterator[None]:
    """What is wrong with a network names its role."""
    try:
        yield
    except RecipeError as error:
        raise RecipeError.of(f._replace(where=f"{role}.{f.where}") for f in error.faults) from error


# ---- synthesize


class _Chunk(NamedTuple):
    """Units that one `synthesize` call makes."""

    name: str
    units: tuple[WorkUnit, ...]


def plan_units(method: Method, target: Target, seed: int) -> Iterator[WorkUnit]:
    """The work units of a recipe, each with its derived seed."""
    for group in method.plan(target):
        yield WorkUnit(
            group.name, group.slots, derive_seed(seed, method.name, method.version, group.name)
        )


def chunks(method: Method, target: Target, seed: int) -> Iterator[_Chunk]:
    """`method.together` units at a time."""
    units = tuple(plan_units(method, target, seed))
    for start in range(0, len(units), method.together):
        part = units[start : start + method.together]
        name = part[0].name if len(part) == 1 else f"{part[0].name}..{part[-1].name}"
        yield _Chunk(name, part)


def synthesize(
    run: StageRun,
    *,
    seed: int,
    dataset: SourceSpec,
    ipc: int,
    method: Method,
    images: ImageFormat,
    bases: Mapping[str, str],
) -> None:
    """Make the images and encode them: `images/images.parquet`, ordered by class and number."""
    pin = dataset.pinned
    target = Target(len(pin.class_names), ipc, pin.channels, pin.height, pin.width)
    folders = opened_bases(run.stem, method.bases, bases, run.project)
    bench = PipelineBench(
        data=open_split(dataset, "train", run.project.sources_for(dataset)),
        data_key=fingerprint(training_key(dataset)),
        models=run.reads("models"),
        resources=run.project.state / "resources",
        checkpoints=run.project.state / WEIGHTS,
        seed=seed,
        device=run.device,
        bases=folders,
        scratch=run.work.path / "arrow",
    )
    made: list[tuple[Slot, bytes, int]] = []
    told: dict[str, JsonValue] = {}
    for chunk in chunks(method, target, seed):
        done = run.work.finished(chunk.name)
        if not done.exists():
            synthesis, trace = _synthesize_chunk(run, method, chunk, bench)
            saying = json.dumps(synthesis.record if isinstance(synthesis, Assembly) else {})
            save_tensors(done, kept_tensors(synthesis), **trace, **{TOLD: saying})
            run.work.checkpoint(chunk.name).clear()
        tensors, record = load_tensors(done)
        told |= json.loads(str(record.pop(TOLD, "{}")))
        for key, value in record.items():
            if isinstance(value, int | float):
                run.facts[f"last_{key}"] = value
        slots = [slot for unit in chunk.units for slot in unit.slots]
        if "labels" in tensors:
            slots = numbered(tensors["labels"].tolist())
        made += encoded(tensors, slots, bench.data, images)
    expected = {Slot(c, n) for c in range(target.num_classes) for n in range(ipc)}
    slots = [slot for slot, _, _ in made]
    if len(slots) != len(expected) or (method.even and set(slots) != expected):
        raise PipelineError(
            f"{len(slots)} images were made, {len(expected)} were asked for", where="synthesize"
        )
    made.sort(key=lambda image: image[0])
    if "base" in told:
        told["base_real_share"] = real_share(folders, str(told["base"]))
    with replaced_folder(run.project.artifacts(run.stem) / "images") as out:
        write_images(
            out,
            [(content, row) for _, content, row in made],
            [slot.label for slot, _, _ in made],
            formation=method.grid,
        )
        if told:
            write_json(out / RECORD, told)


def _synthesize_chunk(
    run: StageRun, method: Method, chunk: _Chunk, bench: PipelineBench
) -> tuple[Synthesis | Assembly, dict[str, float]]:
    trace: dict[str, float] = {}

    def work(state):  # type: ignore[no-untyped-def]
        steps = method.synthesize(chunk.units, bench, state)
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                return end.value
            bad = [name for name, value in progress.metrics.items() if not _finite(value)]
            if bad:
                raise _diverged(
                    f"{bad[0]} is {progress.metrics[bad[0]]} at step {progress.done}", chunk.name
                )
            trace.update(progress.metrics)
            yield progress

    synthesis: Synthesis | Assembly = drive(
        work,
        label=f"{method.name} {chunk.name}",
        checkpoint=run.work.checkpoint(chunk.name),
        reporter=run.reporter,
        stop=run.stop,
    )
    count = sum(len(unit.slots) for unit in chunk.units)
    if isinstance(synthesis, Assembly):
        if len(synthesis) != count or len(synthesis.files) + len(synthesis.real) != count:
            raise PipelineError(
                f"{method.name} put {len(synthesis)} images together for {count} slots",
                where=chunk.name,
            )
        return synthesis, trace
    made = synthesis.images.detach().to("cpu", torch.float32)
    if len(made) != count:
        raise PipelineError(
            f"{method.name} returned {len(made)} images for {count} slots", where=chunk.name
        )
    if not bool(torch.isfinite(made).all()):
        raise _diverged("an image holds NaN or infinity", chunk.name)
    if made.min() < 0 or made.max() > 1:
        raise PipelineError(f"{method.name} returned pixels outside [0, 1]", where=chunk.name)
    return Synthesis(made, synthesis.rows), trace


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _diverged(what: str, unit: str) -> DivergedError:
    return DivergedError(
        what,
        where=f"synthesize {unit}",
        mend="lower the method's learning rate; nothing was written",
    )


def write_images(
    folder: Path,
    images: Sequence[tuple[bytes, int]],
    labels: Sequence[int],
    *,
    formation: int = 1,
) -> None:
    """Encoded images with their labels and, for copies, the row of the training split of each."""
    table = pa.table(
        {
            "image": pa.array([content for content, _ in images], pa.binary()),
            "label": pa.array(labels, pa.int64()),
            "source_row": pa.array([row for _, row in images], pa.int64()),
        },
        metadata={"formation": str(formation)},
    )
    pq.write_table(table, folder / IMAGES, compression="none", use_dictionary=False)


class StoredImages(NamedTuple):
    """What `write_images` wrote."""

    content: list[bytes]
    labels: Tensor
    """[N] int64."""
    source_rows: Tensor
    """[N] int64; -1 where an image is no copy."""
    formation: int = 1
    """Sub-images per side of an image."""


def read_images(folder: Path) -> StoredImages:
    """Read the images of a build."""
    table = pq.read_table(folder / IMAGES)
    return StoredImages(
        table["image"].to_pylist(),
        torch.tensor(table["label"].to_pylist(), dtype=torch.int64),
        torch.tensor(table["source_row"].to_pylist(), dtype=torch.int64),
        int((table.schema.metadata or {}).get(b"formation", b"1")),
    )


# ---- relabel and package


def relabel(run: StageRun, *, dataset: SourceSpec, relabel: RelabelSpec | None) -> None:
    """Soft labels of the stored images: `labels/labels.parquet` and what they are."""
    stored_images = read_images(run.reads("images"))
    made = None
    if relabel is not None:
        made = soft_labels(run, "labels", relabel, stored_images, dataset)
    with replaced_folder(run.project.artifacts(run.stem) / "labels") as out:
        write_labels(out, made)


def soft_labels(
    run: StageRun, name: str, spec: RelabelSpec, stored_images: StoredImages, dataset: SourceSpec
) -> Labels:
    """Labels of any encoded images: those of the set and, in the same way, of its random twins."""
    teachers = [network.at_own_size for network in labelling_networks(run, spec)]
    pixels = codec.decode(stored_images.content, dataset.pinned.channels)
    labels: Labels = drive(
        lambda state: make_labels(
            pixels,
            stored_images.labels,
            spec,
            teachers,
            image_bytes=sum(len(content) for content in stored_images.content),
            formation=stored_images.formation,
            device=run.device,
            state=state,
        ),
        label=name,
        checkpoint=run.work.checkpoint(name),
        reporter=run.reporter,
        stop=run.stop,
    )
    return labels


def labelling_networks(run: StageRun, spec: RelabelSpec | None) -> tuple[Classifier, ...]:
    """The networks of a build that give soft labels, stored and online, on the device."""
    folder = run.reads("models")
    roles = labelling_roles(spec, [path.stem for path in folder.glob("*.safetensors")])
    return tuple(weights.load(folder, role).to(run.device).freeze() for role in roles)


def package(
    run: StageRun,
    *,
    name: str,
    dataset: SourceSpec,
    ipc: int,
    method: Method,
    images: ImageFormat,
    package: PackageSpec,
) -> None:
    """The Parquet data set, which `load_dataset` opens as it is."""
    stored_images = read_images(run.reads("images"))
    classes = len(dataset.pinned.class_names)
    counts = torch.bincount(stored_images.labels, minlength=classes).tolist()
    if sum(counts) != ipc * classes or (method.even and counts != [ipc] * classes):
        wanted = f"{ipc} each" if method.even else f"{ipc * classes} in all"
        raise PipelineError(
            f"images per class are {counts}, {wanted} were asked for", where="package"
        )
    meta: dict[str, object] = {
        "name": name,
        "version": package.version,
        "method": method.name,
        "method_version": method.version,
        "ipc": ipc,
        "codec_images": images.codec,
        "mean": list(dataset.pinned.mean),
        "std": list(dataset.pinned.std),
    }
    if stored_images.formation > 1:
        meta |= {"formation": stored_images.formation, "sub_images": dict(APART)}
    told = run.reads("images") / RECORD
    record = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
    named = None
    if method.by_reference:
        sources = run.project.sources_for(dataset)
        named = named_images(stored_images.source_rows, dataset, sources)
    with replaced_folder(run.project.artifacts(run.stem) / "package") as out:
        labels = read_labels(run.reads("labels"))
        write_package(out, stored_images, labels, dataset, meta, named=named, record=record)


def write_package(
    out: Path,
    stored_images: StoredImages,
    labels: Labels | None,
    dataset: SourceSpec,
    meta: dict[str, object],
    *,
    named: Sequence[Reference | None] | None = None,
    record: Mapping[str, JsonValue] | None = None,
) -> None:
    """Write images and labels as a data set; also used for random twins.

    Args:
        out: An empty folder.
        stored_images: As they were encoded; those that are named are left out.
        labels: None: hard ones only.
        dataset: Pinned.
        meta: For the front matter.
        named: Real images that are named instead of published; None: none.
        record: What the method tells.
    """
    content: Sequence[bytes | None] = stored_images.content
    if named is not None:
        content = [file if one is None else None for file, one in zip(content, named, strict=True)]
    parquet.write(
        out,
        content,
        stored_images.labels,
        dataset.pinned.class_names,
        labels.soft if labels is not None else None,
        labels.views if labels is not None else None,
        meta,
        named=named,
        told=record,
    )
