"""What every `distillhub use` begins with: a set, its real images, and a place to work."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import ValidationError

from distillhub import __version__
from distillhub.data.pins import Digester
from distillhub.data.real import RealData
from distillhub.data.sources import open_split
from distillhub.data.specs import DataPin, SourceSpec
from distillhub.digests import fingerprint
from distillhub.errors import DataError, UsageError
from distillhub.evaluation import protocols
from distillhub.evaluation.feed import ImageSet, SoftSet
from distillhub.evaluation.protocols import Protocol
from distillhub.models.zoo import Classifier, build
from distillhub.ops.progress import Progress, State
from distillhub.pipeline.checkpoint import StopRequest, WorkFolder, drive, pin_threads, threads
from distillhub.pipeline.files import storage_errors, write_text
from distillhub.pipeline.project import environment_sources
from distillhub.pipeline.random_images import random_images
from distillhub.pipeline.reporting import Reporter
from distillhub.pipeline.run import device_name, pick_device
from distillhub.pipeline.scoring import real_source
from distillhub.pipeline.students import identity, scored_with, suitable
from distillhub.records.distilled import DistilledSet, load
from distillhub.records.manifest import MANIFEST, Manifest
from distillhub.records.report import Arm, Record, Regime
from distillhub.records.uses import UsedSet
from distillhub.units import derive_seed

Labels = Literal["hard", "soft"]
R = TypeVar("R", bound=Record)
T = TypeVar("T")


@dataclass(frozen=True)
class Wish:
    """What to use, and how students are trained on it."""

    word: str
    """Local folder or Hub id of the set."""
    data: str | None = None
    """Real images; None: those that the set's own recipe names."""
    protocol: str | None = None
    """None: the one the set was scored with, else one that suits it."""
    labels: Labels = "hard"
    """Of the distilled images; `soft`: those that are stored in the set."""
    runs: int | None = None
    """Paired seeds; None: the protocol's number."""
    seed: int = 0
    """Of the first run."""
    revision: str | None = None
    split: str = "train"
    """Of the set, to train on."""
    test_split: str = "test"
    """Of the real images: a name, or a share of their training split."""

    @property
    def regime(self) -> Regime:
        """Of the distilled arm."""
        return "hard" if self.labels == "hard" else "soft_stored"

    @property
    def arms(self) -> tuple[Arm, Arm]:
        """Distilled, random."""
        return "syn_hard" if self.labels == "hard" else "syn_soft", "rnd_hard"


@dataclass(frozen=True, eq=False)
class Opened:
    """A set, the real images that belong to it, and the protocol."""

    wish: Wish
    set: DistilledSet
    source: SourceSpec
    train: RealData
    test: RealData
    protocol: Protocol
    device: torch.device

    @property
    def pin(self) -> DataPin:
        """Of the real images."""
        return self.source.pinned

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs."""
        return tuple(range(self.wish.seed, self.wish.seed + (self.wish.runs or self.protocol.runs)))

    @cached_property
    def shown(self) -> ImageSet:
        """The distilled images; of mosaics, what they are made of."""
        return self.set.unpacked()

    @property
    def soft(self) -> SoftSet:
        """The same with stored labels."""
        return self.set.unpacked()

    def images(self, arm: Arm, seed: int) -> ImageSet:
        """What a run trains on: the set, or the random images that `evaluate` draws for the seed.

        Beside mosaics these are mosaics, too.

        Raises:
            DataError: If a class has too few real images.
        """
        if arm.startswith("syn"):
            return self.shown

        def generator(label: int) -> torch.Generator:
            drawn = derive_seed("evaluate", "random", seed, label)
            return torch.Generator().manual_seed(drawn)

        return random_images(self.train, self.set.counts, self.set.formation, generator)

    def network(self, arch: str, size: tuple[int, int], classes: int, seed: int) -> Classifier:
        """A fresh student, on the device.

        Raises:
            ValueError: If the name is unknown, or the network does not fit the size.
        """
        return build(
            arch,
            num_classes=classes,
            channels=self.set.channels,
            height=size[0],
            width=size[1],
            mean=self.pin.mean,
            std=self.pin.std,
            seed=derive_seed("evaluation", seed, "network"),
        ).to(self.device)

    def key(self, use: str, *content: object) -> str:
        """Of the scratch folder: all that the figures depend on but the number of runs."""
        return fingerprint(
            use,
            identity(self.set, self.wish.word),
            self.pin.model_dump(mode="json"),
            self.wish.split,
            self.wish.labels,
            self.protocol.sha256,
            device_name(self.device),
            threads(),
            torch.__version__,
            __version__,
            *content,
        )[:32]

    def facts(self, arch: str) -> dict[str, object]:
        """What every use says of itself: the fields of `records.uses.Use` but its notes."""
        word = self.wish.word
        folder = Path(word)
        return {
            "dataset": UsedSet(
                name=folder.resolve().name if folder.is_dir() else word,
                revision=self.set.revision,
                manifest_sha256=_manifest_digest(folder / MANIFEST),
                images_sha256=_images_digest(self.set),
                images=len(self.set),
                class_names=self.set.class_names,
            ),
            "data": self.source.id,
            "test_sha256": None if self.pin.test is None else self.pin.test.sha256,
            "protocol": self.protocol.name,
            "protocol_sha256": self.protocol.sha256,
            "publishable": self.protocol.publishable,
            "arch": arch,
            "regime": self.wish.regime,
            "seeds": self.seeds,
            "device": device_name(self.device),
            "threads": threads(),
            "code_version": __version__,
        }

    def notes(self) -> list[str]:
        """What is to be said of any use."""
        found = []
        if not self.protocol.publishable:
            found.append(f"figures of {self.protocol.name} only show that all works")
        if self.wish.labels == "soft":
            found.append(
                "random images have hard labels only, as the teacher of the set is not at hand: "
                "a gain is of images and labels together"
            )
            found.append("the teacher behind the stored labels has seen all classes")
        return found


def open_use(wish: Wish, *, state: Path, sources: Mapping[str, Path] | None) -> Opened:
    """Open a set and its real images, and check that they can be used.

    Args:
        wish: What is asked for.
        state: Scratch folder.
        sources: Local copies of data sets by Hub id; None: those of the environment.

    Raises:
        UsageError: If it is not known what to test on, or protocol, labels and set do not fit.
        DataError: If set or images cannot be opened, their classes differ, or a class is empty.
    """
    opened = load(wish.word, revision=wish.revision, split=wish.split)
    if wish.labels == "soft" and opened.soft is None:
        raise UsageError(
            "the set has no soft labels", where=wish.word, mend="use it with --labels hard"
        )
    protocol = _protocol(wish, opened)
    source = real_source(wish.word, opened, wish.data, wish.test_split, state, sources)
    known = environment_sources() if sources is None else sources
    if source.pinned.test is None:
        raise DataError("no images to test on", where=source.id, mend="name others: --data")
    train, test = open_split(source, "train", known), open_split(source, "test", known)
    empty = [n for n, count in zip(opened.class_names, opened.counts, strict=True) if not count]
    if empty:
        raise DataError(
            f"the set has no image of class '{empty[0]}'",
            where=wish.word,
            mend="use a set with images of every class",
        )
    return Opened(wish, opened, source, train, test, protocol, pick_device())


def _protocol(wish: Wish, opened: DistilledSet) -> Protocol:
    fits = suitable(opened)
    if wish.labels == "hard" and "hard" not in protocols.get(fits).regimes:
        fits = "hard-1"
    name = wish.protocol or scored_with(Path(wish.word), [wish.regime]) or fits
    try:
        chosen = protocols.get(name)
    except ValueError as error:
        mend = "`distillhub list protocols` shows them"
        raise UsageError(str(error), where="--protocol", mend=mend) from error
    needed: dict[Regime, str] = {wish.regime: "the distilled images", "hard": "the random images"}
    for regime, whose in needed.items():
        if regime not in chosen.regimes:
            raise UsageError(
                f"protocol {name} trains with {', '.join(chosen.regimes)} labels; "
                f"{whose} have {regime} ones",
                where="--protocol",
                mend="choose another protocol, e.g. lowres-1, or other --labels",
            )
    return chosen


def _manifest_digest(path: Path) -> str | None:
    """The artifact's digest, where it has one.

    Raises:
        DataError: If the manifest cannot be read.
    """
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes()).digest
    except ValidationError as error:
        raise DataError(
            f"no manifest of distillhub: {error.errors()[0]['msg']}",
            where=str(path),
            mend="check the set with: distillhub verify",
        ) from error


def _images_digest(opened: DistilledSet) -> str:
    digester = Digester()
    for rows in torch.split(torch.arange(len(opened)), 256):
        digester.update(opened.source.files(rows.tolist()), opened.labels[rows].numpy())
    return digester.hexdigest()


@contextmanager
def held(state: Path, key: str, reporter: Reporter) -> Iterator["Bench"]:
    """A place for the work of one command, which goes on where it was interrupted."""
    pin_threads()
    stop = StopRequest()
    with (
        storage_errors(state),
        stop.watched(parents=False),
        WorkFolder(state / "work", "use", key).held(reporter) as work,
    ):
        yield Bench(work, reporter, stop)


@dataclass(frozen=True)
class Bench:
    """Where pieces of work are done, one after the other, each kept once it is whole."""

    work: WorkFolder
    reporter: Reporter
    stop: StopRequest

    def piece(
        self,
        name: str,
        kind: type[R],
        make: Callable[[State | None], Generator[Progress, None, R]],
    ) -> R:
        """A record that was made before, or is made now; interrupted work goes on."""
        done = self.work.finished(name)
        if not done.exists():
            made = self.drive(name, make)
            write_text(done, made.model_dump_json())
            self.work.checkpoint(name).clear()
        return kind.model_validate_json(done.read_text(encoding="utf-8"))

    def drive(self, name: str, make: Callable[[State | None], Generator[Progress, None, T]]) -> T:
        """Run a piece of work to its end, from its last snapshot on."""
        checkpoint = self.work.checkpoint(name)
        return drive(
            make, label=name, checkpoint=checkpoint, reporter=self.reporter, stop=self.stop
        )


def resumable(
    making: Callable[..., Generator[Progress, None, T]],
) -> Callable[[State | None], Generator[Progress, None, T]]:
    """What takes its snapshot as `state`, for `Bench.piece`."""
    return lambda snapshot: making(state=snapshot)
