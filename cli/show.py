"""show, verify: a dataset in the terminal, and whether it is what its manifest says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillhub_cli.fetch import verify_published
from distillhub_cli.output import output, quoted, size
from distillhub_cli.places import complete_set, dataset, dataset_folder, is_address, shown
from distillhub_cli.scores import print_arms

if TYPE_CHECKING:
    from distillhub.records.distilled import DistilledSet
    from distillhub.records.report import EvalReport

CLASSES_SHOWN = 10


def show(
    where: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="A folder, a finished build or a Hub id.",
            autocompletion=complete_set,
        ),
    ],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a Hub dataset.")
    ] = None,
) -> None:
    """Show a dataset: its table, its storage and its scores.

    Works for any image dataset with labels.
    """
    from distillhub.records.distilled import load

    name = dataset(where)
    out = output()
    opened = load(name, revision=revision)
    report = _report(name, revision)
    out.heading(report.dataset.name if report else name)
    origin = [] if report is None else _origin(report)
    out.facts([*_table(opened), *origin, *_storage(name, report)])
    if report is not None:
        out.say()
        print_arms(out, report)


def _table(opened: "DistilledSet") -> list[tuple[str, str]]:
    counts = list(map(int, opened.counts))
    spread = str(min(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    names = ", ".join(opened.class_names[:CLASSES_SHOWN])
    more = len(opened.class_names) - CLASSES_SHOWN
    kind = "grey" if opened.channels == 1 else "RGB"
    return [
        ("images", f"{len(opened):,}, {opened.height} x {opened.width} {kind}"),
        (
            "classes",
            f"{len(opened.class_names)}: {names}" + (f" and {more} more" if more > 0 else ""),
        ),
        ("per class", spread),
        ("labels", _labels(opened)),
    ]


def _labels(opened: "DistilledSet") -> str:
    soft = opened.soft
    if soft is None:
        return "hard"
    _, views, kept = soft.values.shape
    logits = (
        f"{kept} of {soft.num_classes} logits each, {str(soft.values.dtype).rpartition('.')[2]}"
    )
    return f"hard and soft: {views} views per image, {logits}"


def _origin(report: "EvalReport") -> list[tuple[str, str]]:
    method = report.method.label or report.method.name
    if report.method.version is not None:
        method += f", version {report.method.version}"
    pairs = [("made by", method), ("from", report.source.id)]
    pairs += [
        (t.role, f"{t.arch}" + (f", {t.top1:.1%} top-1" if t.top1 is not None else ""))
        for t in report.method.teacher
    ]
    return pairs


def _storage(name: str, report: "EvalReport | None") -> list[tuple[str, str]]:
    folder = Path(name)
    if report is not None and report.storage is not None:
        s = report.storage
        parts = f"images {size(s.bytes_images)}, labels {size(s.bytes_labels)}"
        ratio = f"labels / images = {s.label_image_ratio:.2f}"
        total = f"{size(s.bytes_total)}: {parts}, other {size(s.bytes_aux)}; {ratio}"
        return [("storage", total)]
    if folder.is_dir():
        return [("storage", size(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())))]
    return []


def _report(name: str, revision: str | None) -> "EvalReport | None":
    """The `eval.json` of a set; None where it has none, as sets of others do."""
    from distillhub.records.report import loads

    path = Path(name) / "eval.json"
    if not Path(name).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(name, "eval.json", repo_type="dataset", revision=revision))
        except (EntryNotFoundError, LocalEntryNotFoundError):
            return None
    return loads(path.read_bytes(), where=str(path)) if path.is_file() else None


def verify(
    where: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="A dataset folder, a finished build, or org/name@v1.0.0 on the Hub.",
            autocompletion=complete_set,
        ),
    ],
    full: Annotated[
        bool,
        typer.Option("--full", help="Of a published set, download the rows and check them too."),
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(help="Public key of the signer: the signature over every file is checked."),
    ] = None,
) -> None:
    """Check a dataset against its manifest: hashes, schema, counts, labels, figures of the card.

    Names every file, row and column that differs; exit code 5. Of a published set, the Hub's
    hashes stand for the rows unless --full is given. With --key, every file must be as the owner
    of that key signed it.
    """
    from distillhub.errors import VerificationError
    from distillhub.packaging.keys import read_public
    from distillhub.packaging.signing import verify_signature
    from distillhub.packaging.verify import verify as check

    if is_address(where):
        verify_published(where, full=full, key=key)
        return
    folder = dataset_folder(where)
    out = output()
    signer = read_public(key) if key is not None else None
    signature = verify_signature(folder, signer) if signer is not None else ()
    verdict = check(folder)
    if signature or verdict.faults:
        raise VerificationError.of((*signature, *verdict.faults))
    if signer is not None:
        out.say("every file is as the key signed it")
    out.say(f"{shown(folder)} is what its manifest says: {len(verdict.checks)} checks passed")
    out.next(quoted("distillhub", "show", shown(folder)))
