"""A small distilled set with everything a card can show, made in a second without any training."""

import hashlib
import io
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from distillhub.packaging import parquet
from distillhub.packaging.card import CardInputs, build_card
from distillhub.packaging.provenance import BuildFacts, Dependency
from distillhub.packaging.specs import CardSpec
from distillhub.records.card import CitedPaper
from distillhub.records.manifest import Manifest
from distillhub.records.report import (
    Comparison,
    ComputeBlock,
    DatasetBlock,
    EnvironmentBlock,
    EvalReport,
    Expected,
    LabelsBlock,
    MethodBlock,
    Metric,
    PlannedRun,
    PreprocessBlock,
    ProtocolBlock,
    Run,
    SourceBlock,
    TeacherBlock,
)
from distillhub.records.soft_labels import Codec, SoftLabels, Views

CLASSES = ("cat", "dog", "owl")
IPC = 4
SIDE = 8
VIEWS = 3
SEEDS = 3
MEANS = {
    "syn_hard": 0.812,
    "rnd_hard": 0.741,
    "syn_soft": 0.853,
    "rnd_soft": 0.829,
    "full_hard": 0.942,
}
PAPER = CitedPaper(title="A method", authors="A. Author", venue="CONF 2020", arxiv="2001.00001")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def pictures(generator: np.random.Generator, channels: int) -> list[bytes]:
    found = []
    for _ in range(IPC * len(CLASSES)):
        shape = (SIDE, SIDE) if channels == 1 else (SIDE, SIDE, 3)
        stream = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def package(
    folder: Path,
    *,
    soft: bool = True,
    channels: int = 1,
    codec: Codec = "float16",
    top_k: int | None = None,
    count: int = VIEWS,
    outside: bool = False,
) -> None:
    """Write a package; `count` views per image, one of row 5 outside the image if so wished."""
    generator = np.random.default_rng(0)
    images = pictures(generator, channels)
    labels = torch.arange(len(CLASSES)).repeat_interleave(IPC)
    rows = len(labels)
    logits = torch.from_numpy(generator.normal(size=(rows, count, len(CLASSES))).astype(np.float32))
    logits[torch.arange(rows), :, labels] += 2
    made = views = None
    if soft:
        made = SoftLabels.encode(logits, codec=codec, top_k=top_k)
        top_left = torch.from_numpy(generator.integers(0, 3, (rows, count, 2)))
        crop = torch.cat([top_left, torch.full_like(top_left, 6)], dim=2).int()
        if outside:
            crop[5, 0, 0] = 7
        flip = torch.from_numpy(generator.integers(0, 2, (rows, count)) == 1)
        views = Views(crop, flip, None, None, None, (SIDE, SIDE))
    meta = {"method": "dm", "ipc": IPC, "version": "1.0.0"}
    parquet.write(folder, images, labels, CLASSES, made, views, meta)


def runs(arms: dict[str, float]) -> tuple[Run, ...]:
    found = []
    for arm, mean in arms.items():
        for seed in range(SEEDS):
            top1 = mean + 0.01 * (seed - 1)
            found.append(
                Run(
                    id=f"digits-1.convnet3-w32.{arm}.s{seed}",
                    protocol="digits-1",
                    arm=arm,
                    arch="convnet3-w32",
                    regime="soft_stored" if arm.endswith("soft") else "hard",
                    seed=seed,
                    subset_seed=seed if arm.startswith("rnd") else None,
                    steps=500,
                    images_seen=12_000,
                    train_images=IPC * len(CLASSES),
                    test_images=300,
                    resolution=(16, 16),
                    top1=top1,
                    top5=None,
                    nll=0.7 + 0.01 * seed,
                    ece=0.05,
                    brier=0.3,
                    class_acc=(top1, top1 - 0.02, top1 + 0.02),
                    wall_s=3.25,
                    device="cpu",
                    code_version="0.1.0",
                )
            )
    return tuple(found)


def metric(values: list[float], ids: tuple[str, ...], unit: str = "fraction") -> Metric:
    mean = sum(values) / len(values)
    std = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = 4.302652729696142 * std / math.sqrt(len(values))  # t(0.975, 2)
    return Metric(
        value=mean, ci95=(mean - half, mean + half), std=std, n=len(values), unit=unit,
        status="measured", runs=ids,
    )  # fmt: skip


def report(
    *, soft: bool = True, channels: int = 1, arms: dict[str, float] | None = None
) -> EvalReport:
    wanted = arms or {arm: mean for arm, mean in MEANS.items() if soft or not arm.endswith("soft")}
    made = runs(wanted)
    by_arm = {arm: [run for run in made if run.arm == arm] for arm in wanted}
    metrics = {}
    for arm, of_arm in by_arm.items():
        ids = tuple(run.id for run in of_arm)
        metrics[f"top1.{arm}"] = metric([run.top1 for run in of_arm], ids)
        metrics[f"nll.{arm}"] = metric([run.nll for run in of_arm], ids, "nats")
    for kind in ("hard", "soft") if soft else ("hard",):
        if f"syn_{kind}" in by_arm and f"rnd_{kind}" in by_arm:
            pairs = zip(by_arm[f"syn_{kind}"], by_arm[f"rnd_{kind}"], strict=True)
            gains = [syn.top1 - rnd.top1 for syn, rnd in pairs]
            ids = tuple(run.id for run in (*by_arm[f"syn_{kind}"], *by_arm[f"rnd_{kind}"]))
            metrics[f"gain_images_{kind}"] = metric(gains, ids, "difference")
    metrics["lrs"] = Metric(value=0.2571, n=3, unit="score", status="measured")
    comparison = Comparison(
        protocols={"hard": "digits-1", "soft_stored": "digits-1"} if soft else {"hard": "digits-1"},
        arch="convnet3-w32",
        metrics=metrics,
        verdicts={"hard": "the images beat random ones by 7.1 points."},
        expected=Expected(
            protocol="digits-1", arm="syn_hard", arch="convnet3-w32", low=0.782, high=0.842
        ),
    )
    planned = tuple(
        PlannedRun(**run.model_dump(include=set(PlannedRun.model_fields))) for run in made
    )
    return EvalReport(
        dataset=DatasetBlock(
            name="animals-dm-4", version="1.0.0", manifest_sha256=None, recipe_sha256=sha("?"),
            ipc=IPC, classes=len(CLASSES), images=IPC * len(CLASSES), resolution=(SIDE, SIDE),
        ),
        source=SourceBlock(
            id="someone/animals", revision="a" * 40, split_hashes={"train": sha("train")},
            test_hash=sha("test"), class_order_sha256=sha("order"),
        ),
        method=MethodBlock(
            name="dm", version=1, real_pixels=False,
            teacher=(
                TeacherBlock(role="teacher", arch="convnet3", weights_sha256=sha("w"), top1=0.931),
            ),
        ),
        preprocess=PreprocessBlock(
            mean=(0.5,) * channels, std=(0.25,) * channels,
            channel_order="grey" if channels == 1 else "RGB", label_names=CLASSES,
        ),
        labels=LabelsBlock(
            regime="soft_stored" if soft else "hard", codec_kl={"1": 0.0012} if soft else {}
        ),
        protocols={
            "digits-1": ProtocolBlock(sha256=sha("p"), publishable=True, summary="A ConvNet-3.")
        },
        planned=planned,
        runs=made,
        comparisons=(comparison,),
        cross_arch={"mlp": Metric(value=0.701, n=1, status="measured")},
        environment=EnvironmentBlock(
            python="3.11.9", torch="2.15.0", os="Linux", deterministic=True, threads=1
        ),
        limitations=("Tried on three classes.",),
    )  # fmt: skip


def inputs(package_folder: Path, made: EvalReport) -> CardInputs:
    return CardInputs(
        package=package_folder,
        report=made,
        stem="dm_animals_4",
        recipe="# DM on animals\nname: animals-dm-4\n",
        resolved="name: animals-dm-4\nipc: 4\n",
        card=CardSpec(license="cc-by-4.0", authors=("A. Maker",), notes=("A toy.",)),
        publish=None,
        papers=(PAPER,),
        weights={"teacher": sha("w")},
        compute={
            "synthesize": ComputeBlock(
                wall_seconds=12.5, cpu_seconds=12.25, peak_host_bytes=123_456_789, device_name="cpu"
            ),
            "relabel": ComputeBlock(
                wall_seconds=2.5, cpu_seconds=2.0, peak_host_bytes=99_456_789, device_name="cpu"
            ),
        },
        facts=BuildFacts(
            started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            finished=datetime(2026, 1, 2, 3, 5, 5, tzinfo=UTC),
            versions={"python": "3.11.9", "torch": "2.15.0"},
            machine={"os": "Linux", "threads": 1},
        ),
        dependencies=(
            Dependency(uri="hub:someone/animals@" + "a" * 40 + "/train", sha256=sha("train")),
        ),
    )


def build(
    out: Path,
    *,
    soft: bool = True,
    channels: int = 1,
    codec: Codec = "float16",
    top_k: int | None = None,
    count: int = VIEWS,
) -> Manifest:
    """Package and card in one go; `out` is made."""
    folder = out.with_name(out.name + "-package")
    package(folder, soft=soft, channels=channels, codec=codec, top_k=top_k, count=count)
    out.mkdir(parents=True)
    return build_card(inputs(folder, report(soft=soft, channels=channels)), out)
