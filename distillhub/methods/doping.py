"""Doping: a finished set, and the real images that a student of it is most confused about.

Symbols: S -> the base, a build of its own with ipc_syn images per class; phi_S -> `student`,
trained on S with its labels; phi_T -> the teacher; c_T -> argmax of phi_T, or the true class;
Conf -> `confusion`, the student's best other class minus c_T; M_k, N_k, g_k -> images of the k-th
size, training images that a student of it recognises, and what an added image wins.

Source: Dataset Concentration (arXiv 2603.27987), Dope Trigger and Doping. The highest confusion is
chosen, as the text of the paper and the authors' code do; Eq. 31 has the opposite sign. The trigger
exists in the paper alone and leaves open what is recognised and by whom: here the student's argmax
is c_T, as a mean over `averaged` students after their last epoch.
"""

import hashlib
import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from distillhub.errors import DataError
from distillhub.methods._base import Assembly, Cost, Method, Paper, Student, StudentSpec, Workbench
from distillhub.models.tensorfile import read_tensors, write_tensors
from distillhub.models.zoo import Classifier
from distillhub.ops.doping import confusion, most_confused, most_confused_by_class, pick
from distillhub.ops.pixels import resize
from distillhub.ops.progress import Progress, State
from distillhub.records.doping import DopingBlock, SizeRecord
from distillhub.units import Group, Target, WorkUnit, all_together

BATCH = 256
"""Real images shown to the networks at a time."""
MARGINS = "margins.safetensors"


class Margins(NamedTuple):
    """What a student makes of all training images."""

    confusion: Tensor
    """[N] float32, in [-1, 1]."""
    recognised: int
    """Images whose class it finds."""


class Doping(Method):
    """A base filled up to `ipc` images per class with real ones."""

    name: Literal["doping"] = "doping"
    version: Literal[1] = 1
    base: str | None = None
    """Recipe of the synthetic images: a name beside this one, or a path; null with
    `trigger: auto`."""
    trigger: Literal["auto", "fixed", "off"] = "fixed"
    """`fixed`: dope `base`; `auto`: the first of `schedule` after which an added image wins at most
    one recognised image; `off`: `base` as it is, which then has `ipc` images per class."""
    schedule: tuple[str, ...] = ()
    """Recipes of rising sizes, for `auto`."""
    averaged: int = Field(default=3, gt=0)
    """Students per size whose recognised images are averaged; the authors do not say."""
    student: StudentSpec
    """phi_S. The authors train the architecture that is evaluated, on soft labels."""
    label_source: Literal["teacher", "true"] = "teacher"
    """What c_T is: the teacher's argmax, as the authors have it, or the class."""
    quota: Literal["global", "classwise"] = "global"
    """`global`, of the published script: the most confused of all images, so that classes get
    different numbers; `classwise`: equal numbers."""
    publish: Literal["pixels", "reference"] = "pixels"
    """`reference`: real images are published by file name and digest; `distillhub materialize`
    fills their pixels in from a copy of the source."""

    keeps_files: ClassVar[bool] = True
    paper: ClassVar[Paper] = Paper(
        "Beyond Dataset Distillation: Lossless Dataset Concentration via Diffusion-Assisted "
        "Distribution Alignment",
        "Tongfei Liu, Yufan Liu, Bing Li, Weiming Hu",
        "arXiv 2026",
        arxiv="2603.27987",
        code="https://github.com/kkkkqq/Dataset-Concentration",
    )

    @model_validator(mode="after")
    def _base_or_schedule(self) -> Self:
        if self.trigger == "auto" and (self.base is not None or len(self.schedule) < 2):
            raise ValueError("trigger: auto needs a schedule of at least two recipes, and no base")
        if self.trigger != "auto" and (self.base is None or self.schedule):
            raise ValueError(f"trigger: {self.trigger} needs a base, and no schedule")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """The teacher, where it says what is recognised."""
        return ("teacher",) if self.label_source == "teacher" else ()

    @property
    def bases(self) -> tuple[str, ...]:
        """The base, or all that it is chosen from."""
        return self.schedule if self.base is None else (self.base,)

    @property
    def students(self) -> tuple[StudentSpec, ...]:
        """One kind of student, however many are trained."""
        return () if self.trigger == "off" else (self.student,)

    @property
    def even(self) -> bool:
        """Only where every class has the same quota."""
        return self.quota == "classwise" or self.trigger == "off"

    @property
    def by_reference(self) -> bool:
        """As `publish` says."""
        return self.publish == "reference"

    def plan(self, target: Target) -> Iterator[Group]:
        """One group: the quota couples all classes."""
        return all_together(target)

    def synthesize(
        self, units: Sequence[WorkUnit], bench: Workbench, state: State | None = None
    ) -> Generator[Progress, None, Assembly]:
        """Choose the base, train its student, and add the most confused real images."""
        data = bench.data
        looked: dict[str, list[Margins]] = {}
        student: Student | None = None
        for base in () if self.trigger == "off" else self.bases:
            looked[base] = []
            for number in range(self.averaged if self.trigger == "auto" else 1):
                student = yield from bench.student(self.student, base, number=number, state=state)
                done = len(looked) - 1, number
                margins = yield from self._look(student, bench, done)
                looked[base].append(margins)
        recognised = [
            sum(margins.recognised for margins in of_base) / len(of_base)
            for of_base in looked.values()
        ]
        sizes = [len(bench.artifact(base)) for base in self.bases]
        choice = pick(sizes, recognised or [0.0])
        chosen = self.bases[choice.size]
        base_set = bench.artifact(chosen)
        wanted = sum(len(unit.slots) for unit in units)
        rows, spread = torch.empty(0, dtype=torch.int64), None
        if looked:
            score = looked[chosen][0].confusion
            rows = self._select(score, wanted, base_set.counts, data.labels)
            spread = (float(score[rows].min()), float(score[rows].max()))
        record = DopingBlock(
            base=Path(chosen).stem,
            trigger=self.trigger,
            quota=self.quota,
            label_source=self.label_source,
            student=None if student is None else student.arch,
            protocol=None if student is None else self.student.protocol,
            averaged=max(map(len, looked.values()), default=0),
            train_images=len(data),
            sizes=tuple(
                SizeRecord(
                    base=Path(base).stem,
                    images=sizes[k],
                    recognised=recognised[k] if recognised else None,
                    gain=choice.gains[k] if k < len(choice.gains) else None,
                )
                for k, base in enumerate(self.bases)
            ),
            kept=len(base_set),
            doped=len(rows),
            confusion=spread,
        )
        return Assembly(
            base_set.source.files(range(len(base_set))),
            data.part(rows),
            torch.cat([base_set.labels, data.labels[rows]]),
            record.model_dump(mode="json"),
        )

    def check_bases(self, target: Target, ipcs: Mapping[str, int]) -> Iterator[str]:
        """Every base leaves room for real images, and the sizes of a schedule rise."""
        for base, ipc in ipcs.items():
            if self.trigger == "off" and ipc != target.ipc:
                yield f"trigger is off and base {base} has {ipc} images per class, not {target.ipc}"
            if self.trigger != "off" and ipc >= target.ipc:
                yield f"ipc is {target.ipc} but base {base} has {ipc} already: nothing to dope"
        sizes = [ipcs[base] for base in self.bases]
        if any(after <= before for before, after in itertools.pairwise(sizes)):
            yield f"the sizes of the schedule, {', '.join(map(str, sizes))}, do not rise"

    def cost(self, target: Target, counts: Sequence[int]) -> Cost:
        """Two looks at every training image per student; the training is the student's own."""
        students = {"auto": len(self.schedule) * self.averaged, "fixed": 1, "off": 0}[self.trigger]
        arch = self.student.arch
        steps = students * target.num_classes
        each = max(1, sum(counts) // target.num_classes)
        return Cost(steps, arch, forward=each if arch is not None and steps else 0)

    def _select(self, score: Tensor, wanted: int, kept: Sequence[int], labels: Tensor) -> Tensor:
        """Rows of the real images that fill a base up to `wanted` images, [m] int64."""
        try:
            if self.quota == "global":
                return most_confused(score, wanted - sum(kept))
            each = wanted // len(kept)
            return most_confused_by_class(score, labels, [each - count for count in kept])
        except ValueError as error:
            raise DataError(
                str(error), where="doping", mend="set another ipc, or take another base"
            ) from error

    def _look(
        self, student: Student, bench: Workbench, done: tuple[int, int]
    ) -> Generator[Progress, None, Margins]:
        """Confusion of all training images; each class is a resource.

        Args:
            student: phi_S.
            bench: Its training split is looked at.
            done: Sizes, and students of this size, that were looked at before.
        """
        data = bench.data
        students = self.averaged if self.trigger == "auto" else 1
        before = (done[0] * students + done[1]) * data.num_classes
        total = len(self.bases) * students * data.num_classes
        teacher = bench.network("teacher") if self.label_source == "teacher" else None
        key: dict[str, object] = {
            "student": student.identity,
            "teacher": None if teacher is None else _identity(teacher),
        }
        score, recognised = torch.empty(len(data)), 0
        for label in range(data.num_classes):
            rows = data.rows_of(label)
            build = partial(_measure, rows, student, teacher, bench)
            folder = bench.resource("margins", {**key, "label": label}, build)
            tensors, _ = read_tensors(folder / MARGINS)
            score[rows] = tensors["confusion"]
            recognised += int(tensors["recognised"].sum())
            yield Progress(before + label + 1, total, {}, None)
        return Margins(score, recognised)


@torch.no_grad()
def _measure(
    rows: Tensor, student: Student, teacher: Classifier | None, bench: Workbench, folder: Path
) -> None:
    """Write confusion and recognition of some training images."""
    scores, found = [], []
    for part in torch.split(rows, BATCH):
        images = bench.data.images(part)
        logits = student.logits(images).cpu()
        target = bench.data.labels[part]
        if teacher is not None:
            shown = resize(images.to(bench.device), teacher.input_shape[1:])
            target = teacher(shown).argmax(dim=1).cpu()
        scores.append(confusion(logits.softmax(dim=1), target))
        found.append(logits.argmax(dim=1) == target)
    tensors = {"confusion": torch.cat(scores), "recognised": torch.cat(found)}
    write_tensors(folder / MARGINS, tensors, {})


def _identity(network: Classifier) -> str:
    """A digest of the weights."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


METHOD = Doping
