"""`distillhub use slim`: network slimming on a set alone, beside random real images."""

import math
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path

from distillhub.errors import UsageError
from distillhub.evaluation.feed import Feed, Space
from distillhub.evaluation.protocols import Protocol
from distillhub.evaluation.runner import feed_of
from distillhub.evaluation.slimming import chain, cost, point, shorter, slim, train_sparse
from distillhub.models.classifier import Classifier
from distillhub.ops.progress import Progress, State
from distillhub.packaging.use_figures import slim_plot
from distillhub.pipeline.checkpoint import load_tensors, save_tensors
from distillhub.pipeline.files import write_json
from distillhub.pipeline.reporting import Reporter
from distillhub.pipeline.uses import Bench, Opened, Wish, held, open_use, resumable
from distillhub.records.report import Arm, regime_of
from distillhub.records.uses import SlimReport, SlimRun

STEM = "slim"
"""Of the files written: slim.json, slim.png."""
MODEL = "vgg11-bn"
RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SPARSITY = 1e-4
"""That of Liu et al. for VGG: there over 160 epochs of 50,000 images."""
FINETUNE = 1.0
"""Share of the protocol's length; Liu et al. fine-tune as long as they train."""
LEAST_SIDE = 32
"""Pixels that images are enlarged to where the network does not fit them."""


def use_slim(
    wish: Wish,
    out: Path,
    *,
    state: Path,
    sources: Mapping[str, Path] | None,
    reporter: Reporter,
    ratios: Sequence[float] = RATIOS,
    model: str = MODEL,
    sparsity: float = SPARSITY,
    finetune: float = FINETUNE,
) -> SlimReport:
    """Train, prune and fine-tune on a set, and write `out`/slim.json and slim.png.

    Args:
        wish: The set, and how networks are trained.
        out: Folder; made where needed.
        state: Scratch folder: the same call goes on after an interruption.
        sources: Local copies of data sets by Hub id; None: those of the environment.
        reporter: Told how it goes.
        ratios: Shares of the channels that go, each in [0, 1).
        model: A network that is one chain of convolutions with batch norm.
        sparsity: Weight of the L1 norm of the scales while training.
        finetune: Length of fine-tuning as a share of the protocol's.

    Raises:
        UsageError: If the network has no batch norm or is no chain, a ratio is not in [0, 1), or
            protocol, labels and set do not fit.
        DataError: If set or images cannot be opened.
        DivergedError: If a loss or a logit is not finite.
    """
    _check(ratios, sparsity, finetune)
    opened = open_use(wish, state=state, sources=sources)
    protocol = _sized(opened, model)
    size = protocol.resolution(opened.set.height, opened.set.width)
    dense = opened.network(model, size, opened.set.num_classes, wish.seed)
    before = cost(dense)
    key = opened.key(STEM, model, protocol.sha256, sparsity, finetune)
    space = Space(size, opened.pin.mean, opened.pin.std, opened.device, protocol.test_side)
    wanted = sorted(set(ratios))
    runs: list[SlimRun] = []
    with held(state, key, reporter) as bench:
        for arm in wish.arms:
            for seed in opened.seeds:
                work = _Work(opened, bench, protocol, space, model, arm, seed)
                runs += work.all(wanted, sparsity, finetune)
        report = SlimReport.model_validate(
            {
                **opened.facts(model),
                "protocol_sha256": protocol.sha256,
                "notes": _notes(opened, runs, protocol),
                "sparsity": sparsity,
                "finetune": finetune,
                "resolution": size,
                "layers": [link.conv.out_channels for link in chain(dense)],
                "parameters": before.parameters,
                "flops": before.flops,
                "points": [point(ratio, wish.arms, runs) for ratio in wanted],
                "runs": runs,
            }
        )
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / f"{STEM}.json", report.model_dump(mode="json"))
        slim_plot(report, out / f"{STEM}.png")
    return report


class _Work:
    """One training and all that is pruned from it."""

    def __init__(
        self,
        opened: Opened,
        bench: Bench,
        protocol: Protocol,
        space: Space,
        model: str,
        arm: Arm,
        seed: int,
    ) -> None:
        self.opened, self.bench, self.space = opened, bench, space
        self.protocol = protocol.for_student(model)
        self.model, self.arm, self.seed = model, arm, seed
        self.name = f"{model}.{arm}.s{seed}"

    def all(self, ratios: Sequence[float], sparsity: float, finetune: float) -> list[SlimRun]:
        """The runs of all ratios."""
        images = self.opened.images(self.arm, self.seed)
        classes = self.opened.set.num_classes
        regime = regime_of(self.arm)
        feed = feed_of(regime, self.protocol, images, self.space, self.name, classes)
        dense = self._trained(feed, sparsity)
        tuned = shorter(self.protocol, finetune, feed.size, classes)
        found = []
        for ratio in ratios:
            name = f"{self.name}.r{ratio:g}"
            making = partial(
                slim,
                dense,
                ratio,
                arm=self.arm,
                seed=self.seed,
                feed=feed,
                test=self.opened.test,
                space=self.space,
                protocol=tuned,
                what=name,
            )
            found.append(self.bench.piece(name, SlimRun, resumable(making)))
        return found

    def _trained(self, feed: Feed, sparsity: float) -> Classifier:
        """The network before pruning; its weights stay in the scratch folder."""
        classes = self.opened.set.num_classes
        student = self.opened.network(self.model, self.space.resolution, classes, self.seed)
        done = self.bench.work.finished(self.name)
        if not done.exists():

            def training(snapshot: State | None) -> Generator[Progress, None, None]:
                yield from train_sparse(
                    student,
                    feed,
                    self.protocol,
                    sparsity=sparsity,
                    seed=self.seed,
                    what=self.name,
                    state=snapshot,
                )

            self.bench.drive(self.name, training)
            save_tensors(done, dict(student.net.state_dict()))
            self.bench.work.checkpoint(self.name).clear()
        weights, _ = load_tensors(done)
        student.net.load_state_dict(weights)
        return student


def _check(ratios: Sequence[float], sparsity: float, finetune: float) -> None:
    wrong = [ratio for ratio in ratios if not 0 <= ratio < 1]
    if wrong or not ratios:
        raise UsageError(
            f"{wrong[0]:g} is no pruning ratio" if wrong else "there is no pruning ratio",
            where="--ratios",
            mend="a ratio is a share of the channels, at least 0 and below 1: 0,0.5,0.9",
        )
    if not 0 <= sparsity < math.inf:
        mend = f"take {SPARSITY:g}, or 0 to prune a network that was trained as usual"
        raise UsageError(f"{sparsity:g} is no weight of a norm", where="--sparsity", mend=mend)
    if not 0 < finetune <= 100:
        mend = "take 1 for the protocol's length, 0.2 for a fifth of it"
        raise UsageError(f"{finetune:g} is no length of a training", where="--finetune", mend=mend)


def _sized(opened: Opened, model: str) -> Protocol:
    """The protocol at a size that the network fits.

    Raises:
        UsageError: If there is none, or the network cannot be slimmed.
    """
    protocol, (height, width) = opened.protocol, (opened.set.height, opened.set.width)
    side = min(protocol.resolution(height, width))
    larger = {"size": LEAST_SIDE, "test_side": None}
    tried = [protocol, *([protocol.model_copy(update=larger)] if side < LEAST_SIDE else [])]
    fault = ""
    for chosen in tried:
        try:
            net = opened.network(model, chosen.resolution(height, width), 2, 0)
        except ValueError as error:
            fault = fault or str(error)
            continue
        try:
            chain(net)
        except ValueError as error:
            mend = "take vgg11-bn, alexnet-bn or a ConvNet with batch norm, e.g. convnet3-w32-bn"
            raise UsageError(str(error), where="--model", mend=mend) from error
        return chosen
    mend = "`distillhub list models` shows all names"
    raise UsageError(fault, where="--model", mend=mend)


def _notes(opened: Opened, runs: Sequence[SlimRun], protocol: Protocol) -> list[str]:
    notes = opened.notes()
    if protocol.size != opened.protocol.size:
        notes.append(f"images are enlarged to {protocol.size} pixels, which the network needs")
    spared = [run for run in runs if run.spared]
    if spared:
        ratios = ", ".join(f"{ratio:g}" for ratio in sorted({run.ratio for run in spared}))
        notes.append(
            f"{len(spared)} of {len(runs)} networks keep one channel in layers that their ratio "
            f"({ratios}) would have emptied"
        )
    return notes
