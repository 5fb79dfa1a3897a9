"""The stages that say how good a set is: evaluate and card.

The arms are put together here, one floor above the rooms that do the work: random twins are drawn,
encoded and labelled by the very code that made the set, so that they differ from it in their images
alone.
"""

import functools
import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from distillhub.data import codec
from distillhub.data.sources import RealData, open_split
from distillhub.data.specs import ImageFormat, SourceSpec
from distillhub.digests import digest_of, fingerprint, sha256_of
from distillhub.errors import PipelineError
from distillhub.evaluation.arms import PACKED, planned_runs
from distillhub.evaluation.feed import ImageSet
from distillhub.evaluation.runner import run as evaluation_run
from distillhub.evaluation.specs import EvalSpec
from distillhub.evaluation.summary import summarize
from distillhub.methods.random import draw
from distillhub.models.classifier import Classifier
from distillhub.ops.formation import pack
from distillhub.packaging.card import CardInputs, build_card
from distillhub.packaging.parquet import PackageRecord
from distillhub.packaging.provenance import BuildFacts, Dependency
from distillhub.pipeline.checkpoint import drive, threads
from distillhub.pipeline.files import replaced_folder, write_json
from distillhub.pipeline.finished import remembered, run_key
from distillhub.pipeline.making import (
    StoredImages,
    labelling_networks,
    soft_labels,
    training_key,
    write_package,
)
from distillhub.pipeline.mixing import blocks_of
from distillhub.pipeline.naming import with_pixels
from distillhub.pipeline.run import StageRun, device_name, versions
from distillhub.pipeline.store import stored
from distillhub.pipeline.versions import CODE, STAGES
from distillhub.recipe.schema import ResolvedRecipe
from distillhub.records.card import CitedPaper
from distillhub.records.distilled import DistilledSet
from distillhub.records.report import (
    ComputeBlock,
    DatasetBlock,
    EnvironmentBlock,
    EvalReport,
    GeneratorBlock,
    LabelsBlock,
    MethodBlock,
    PlannedRun,
    PreprocessBlock,
    Run,
    SourceBlock,
    StorageBlock,
    TeacherBlock,
)
from distillhub.relabel.files import read_labels
from distillhub.relabel.spec import RelabelSpec, labelling_roles
from distillhub.units import derive_seed

RUNS = "runs.json"
UNLIMITED = 1e6
"""Bytes of labels, as a multiple of those of the images, that no labels reach."""


def evaluate(
    run: StageRun,
    *,
    seed: int,
    dataset: SourceSpec,
    ipc: int,
    images: ImageFormat,
    relabel: RelabelSpec | None,
    evaluate: tuple[EvalSpec, ...],
) -> None:
    """Train and test every student on every arm; finished runs are kept one by one."""
    pin, syn, networks = dataset.pinned, run.reads("package"), _networks(run)
    labelling = labelling_roles(relabel, list(networks))
    opened = functools.lru_cache(maxsize=2)(
        functools.partial(DistilledSet.open, cache=run.work.path / "arrow")
    )
    plan = planned_runs(
        evaluate,
        seed=seed,
        soft=opened(syn).soft is not None,
        height=pin.height,
        width=pin.width,
        teacher=bool(labelling),
        mosaics=opened(syn).formation > 1,
    )
    labelled = _labelled_alike(relabel, opened(syn))
    online = any(planned.regime == "soft_online" for planned in plan)
    labellers = labelling_networks(run, relabel) if online else ()
    test = open_split(dataset, "test", run.project.sources_for(dataset)) if plan else None
    real = open_split(dataset, "train", run.project.sources_for(dataset)) if plan else None

    @functools.lru_cache(maxsize=2)
    def arm_of(package: Path) -> DistilledSet:
        return opened(package) if real is None else with_pixels(opened(package), real)

    runs = []
    for planned in sorted(plan, key=lambda p: (p.protocol, p.arch, p.seed, p.arm)):
        if test is None or real is None:
            raise AssertionError("runs without data")
        package = None if planned.arm == "full_hard" else syn
        if planned.subset_seed is not None:
            packed = opened(syn).formation if planned.arm in PACKED else 1
            package = _twin(
                run, planned.subset_seed, real, dataset, ipc, images, labelled, formation=packed
            )
        key = run_key(
            planned,
            dataset,
            package,
            labellers=[str(networks[role]["sha256"]) for role in labelling],
            device=run.device,
        )

        def train(
            planned: PlannedRun = planned,
            package: Path | None = package,
            real: RealData = real,
            test: RealData = test,
        ) -> Run:
            arm = real if package is None else arm_of(package).unpacked()
            return _train(run, planned, arm, test, dataset, labellers)

        runs.append(remembered(run, planned, key, train))
    environment = EnvironmentBlock(
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda if run.device.type == "cuda" else None,
        os=platform.system(),
        deterministic=run.device.type == "cpu",
        threads=threads(),
    )
    with replaced_folder(run.project.artifacts(run.stem) / "reports") as out:
        content = {
            "planned": [planned.model_dump(mode="json") for planned in plan],
            "runs": [one.model_dump(mode="json") for one in runs],
            "environment": environment.model_dump(mode="json"),
        }
        write_json(out / RUNS, content)


def _networks(run: StageRun) -> dict[str, dict[str, str | float | None]]:
    """What the models stage made, by role."""
    found: dict[str, dict[str, str | float | None]] = json.loads(
        (run.reads("models") / "models.json").read_text(encoding="utf-8")
    )
    return found


def _train(
    run: StageRun,
    planned: PlannedRun,
    arm: ImageSet,
    test: RealData,
    dataset: SourceSpec,
    labellers: tuple[Classifier, ...],
) -> Run:
    pin = dataset.pinned
    return drive(
        lambda state: evaluation_run(
            planned,
            train=arm,
            test=test,
            class_names=pin.class_names,
            mean=pin.mean,
            std=pin.std,
            device=run.device,
            labellers=labellers,
            code_version=f"evaluate {CODE['evaluate']}",
            state=state,
        ),
        label=planned.id,
        checkpoint=run.work.checkpoint(planned.id),
        reporter=run.reporter,
        stop=run.stop,
    )


def _labelled_alike(relabel: RelabelSpec | None, made: DistilledSet) -> RelabelSpec | None:
    """How random images are labelled beside a set: with as many views and bits as it has.

    A budget would give them other labels, because their files have other sizes.
    """
    if relabel is None or made.soft is None:
        return None
    soft = made.soft
    return relabel.model_copy(
        update={
            "count": soft.entries // made.formation**2,
            "codec": soft.codec,
            "top_k": "all" if soft.kept == soft.num_classes else soft.kept,
            "budget": UNLIMITED,
        }
    )


def _twin(
    run: StageRun,
    seed: int,
    real: RealData,
    dataset: SourceSpec,
    ipc: int,
    images: ImageFormat,
    relabel: RelabelSpec | None,
    *,
    formation: int,
) -> Path:
    """The package of a new random subset, encoded and labelled as the set itself is.

    With a formation above 1 every image is a mosaic of random ones.

    It is kept, so that new protocols, and recipes with the same labels, do not remake it. `relabel`
    is that of `_labelled_alike`.
    """
    networks = {} if relabel is None else _networks(run)
    labelling = {
        role: networks[role]["sha256"] for role in labelling_roles(relabel, list(networks))
    }
    key = fingerprint(
        training_key(dataset),
        ipc,
        images.model_dump(mode="json"),
        None if relabel is None else relabel.model_dump(mode="json"),
        labelling,
        seed,
        [CODE[stage] for stage in ("synthesize", "relabel", "package")],
        device_name(run.device) if relabel is not None else "",
        *([formation] if formation > 1 else []),
    )

    def build(folder: Path) -> None:
        run.reporter.note(f"drawing random twin {seed}")
        rows = draw(
            real,
            ipc * formation**2,
            lambda label: torch.Generator().manual_seed(derive_seed("random twin", seed, label)),
        )
        drawn = pack(real.images(rows), formation)
        first = rows[:: formation**2]
        chosen = StoredImages(
            codec.encode(drawn, images), real.labels[first], first, formation=formation
        )
        labels = (
            None if relabel is None else soft_labels(run, f"twin-{seed}", relabel, chosen, dataset)
        )
        facts: dict[str, object] = {"name": f"random-{ipc}-{seed}"}
        if formation > 1:
            facts["formation"] = formation
        write_package(folder / "package", chosen, labels, dataset, facts)

    return stored(run.project.state / "resources", f"twin-{key[:32]}", build) / "package"


# ---- card


def card(run: StageRun, recipe: ResolvedRecipe) -> None:
    """Complete the data set: card, figures, eval.json, manifest, Croissant, provenance."""
    content = json.loads((run.reads("reports") / RUNS).read_text(encoding="utf-8"))
    planned = tuple(PlannedRun.model_validate(entry) for entry in content["planned"])
    runs = tuple(Run.model_validate(entry) for entry in content["runs"])
    networks = _networks(run)
    environment = EnvironmentBlock.model_validate(content["environment"])
    costs = {stage: _cost(run, stage) for stage in STAGES[1:-1]}
    paper = recipe.method.paper
    with replaced_folder(run.project.artifacts(run.stem) / "dataset") as out:
        build_card(
            CardInputs(
                package=run.reads("package"),
                report=_report(run, recipe, planned, runs, networks, environment),
                stem=run.stem,
                recipe=run.project.recipe(run.stem).read_text(encoding="utf-8"),
                resolved=run.project.resolved(run.stem).read_text(encoding="utf-8"),
                card=recipe.card,
                publish=recipe.publish,
                papers=(CitedPaper(**paper._asdict()),),
                weights={role: str(record["sha256"]) for role, record in networks.items()},
                compute={stage: compute_block(cost) for stage, cost in costs.items()},
                facts=_facts(list(costs.values())),
                dependencies=tuple(_dependencies(recipe, networks)),
            ),
            out,
        )


def _report(
    run: StageRun,
    recipe: ResolvedRecipe,
    planned: Sequence[PlannedRun],
    runs: Sequence[Run],
    networks: dict[str, dict[str, str | float | None]],
    environment: EnvironmentBlock,
) -> EvalReport:
    pin, soft = recipe.dataset.pinned, recipe.relabel is not None
    made = read_labels(run.reads("labels"))
    packaged = PackageRecord.model_validate_json(
        (run.reads("package") / "package.json").read_bytes()
    )
    teachers = tuple(
        TeacherBlock(
            role=role, arch=record["arch"], weights_sha256=record["sha256"], top1=record["top1"]
        )
        for role, record in networks.items()
        if role != "generator"
    )
    found = summarize(
        recipe.evaluate,
        planned,
        runs,
        soft=soft,
        height=pin.height,
        width=pin.width,
        source_archs=frozenset(
            (*recipe.method.guides, *(spec.arch for spec in recipe.networks.values()))
        ),
    )
    return EvalReport(
        dataset=DatasetBlock(
            name=recipe.name,
            version=recipe.package.version,
            manifest_sha256=None,
            recipe_sha256=sha256_of(run.project.resolved(run.stem)),
            ipc=recipe.ipc,
            classes=len(pin.class_names),
            images=recipe.ipc * len(pin.class_names),
            resolution=(pin.height, pin.width),
            counts=None if recipe.method.even else packaged.counts,
            formation=recipe.method.grid,
        ),
        source=SourceBlock(
            id=public_id(recipe.dataset),
            revision=pin.revision,
            split_hashes={"train": pin.train.sha256},
            test_hash=None if pin.test is None else pin.test.sha256,
            class_order_sha256=digest_of(list(pin.class_names)),
        ),
        method=MethodBlock(
            name=recipe.method.name,
            version=recipe.method.version,
            real_pixels=recipe.method.real_pixels,
            teacher=teachers,
            generator=_generator(networks.get("generator")),
            label=recipe.method.label,
        ),
        preprocess=PreprocessBlock(
            mean=pin.mean,
            std=pin.std,
            channel_order="grey" if pin.channels == 1 else "RGB",
            label_names=pin.class_names,
        ),
        labels=LabelsBlock(
            regime="soft_stored" if soft else "hard",
            codec_kl={} if made is None else made.record.divergences,
            codec_mse=None if made is None else made.record.mse,
            codec_top1_agreement=None if made is None else made.record.top1_agreement,
            networks=tuple(role for role in recipe.labelling if role != "teacher"),
        ),
        planned=tuple(planned),
        runs=tuple(runs),
        storage=StorageBlock(
            bytes_images=0,
            bytes_labels=0,
            bytes_aux=0,
            bytes_total=0,
            bytes_source=None,
            label_image_ratio=0,
        ),
        environment=environment,
        limitations=recipe.method.notes,
        **blocks_of(packaged.record, recipe, public_id(recipe.dataset)),
        **found._asdict(),
    )


def _generator(entry: dict[str, str | float | None] | None) -> GeneratorBlock | None:
    """The generator's entry in the index of networks, as the report has it."""
    if entry is None:
        return None
    known = {key: entry[key] for key in ("revision", "sha256", "license")}
    return GeneratorBlock.model_validate({"id": entry["arch"], **known})


def public_id(dataset: SourceSpec) -> str:
    """How a source is named in what is published: never by a path of the machine."""
    local = dataset.id.startswith((".", "/", "~")) or (
        dataset.pinned.revision is None and "/" not in dataset.id
    )
    return f"local:{Path(dataset.id).name}" if local and ":" not in dataset.id else dataset.id


def _cost(run: StageRun, stage: str) -> dict[str, object]:
    path = run.project.stats(run.stem, stage)
    try:
        content: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise PipelineError(
            f"no record of what {stage} cost",
            where=str(path),
            mend=f"run the stage again: distillhub stage {stage} {run.stem}",
        ) from error
    return content


def compute_block(cost: dict[str, object]) -> ComputeBlock:
    """What a stage cost, as the report has it."""
    on_gpu = not str(cost["device"]).startswith("cpu")
    return ComputeBlock(
        wall_seconds=float(str(cost["wall_seconds"])),
        cpu_seconds=float(str(cost["cpu_seconds"])),
        gpu_seconds=float(str(cost["wall_seconds"])) if on_gpu else None,
        peak_host_bytes=int(str(cost["peak_host_bytes"])),
        peak_gpu_bytes=int(str(cost["peak_gpu_bytes"])) if on_gpu else None,
        device_name=str(cost["device"]),
    )


def _facts(costs: Sequence[dict[str, object]]) -> BuildFacts:
    finished = [datetime.fromisoformat(str(cost["finished"])) for cost in costs]
    first = min(
        moment.timestamp() - float(str(cost["wall_seconds"]))
        for moment, cost in zip(finished, costs, strict=True)
    )
    return BuildFacts(
        started=datetime.fromtimestamp(first, UTC).replace(microsecond=0),
        finished=max(finished),
        versions=dict(versions()),
        machine={
            "os": platform.system(),
            "architecture": platform.machine(),
            "device": ", ".join(dict.fromkeys(str(cost["device"]) for cost in costs)),
            "threads": threads(),
        },
        code=commit(),
    )


def commit() -> str | None:
    """Commit of the checkout that this code runs from; None for an installed wheel."""
    folder = Path(__file__).resolve().parent
    if not (folder.parent.parent / ".git").exists():
        return None
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip()


def _dependencies(
    recipe: ResolvedRecipe, networks: dict[str, dict[str, str | float | None]]
) -> list[Dependency]:
    pin, name = recipe.dataset.pinned, public_id(recipe.dataset)
    hub = f"hub:datasets/{name}@{pin.revision}" if pin.revision is not None else name
    splits = {"train": pin.train} | ({} if pin.test is None else {"test": pin.test})
    found = [
        Dependency(uri=f"{hub}/{split}", sha256=entry.sha256) for split, entry in splits.items()
    ]
    found += [Dependency(uri=f"build:{stem}", sha256=sha) for stem, sha in recipe.bases.items()]
    return found + [
        Dependency(uri=f"weights:{role}", sha256=str(entry["sha256"]))
        for role, entry in networks.items()
    ]
