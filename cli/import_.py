"""import: a distilled set that others made, as an artifact like those that `build` makes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from distillhub.errors import UsageError
from distillhub_cli.output import output, quoted
from distillhub_cli.places import shown


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of images by class, a .pt or .npz file, a folder in Hub layout, "
            "or a Hub id.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the artifact.")],
    name: Annotated[
        str | None, typer.Option(help="Of the set; default: that of the source.")
    ] = None,
    kind: Annotated[
        Literal["auto", "folder", "pt", "npz", "fkd", "hub"],
        typer.Option(help="fkd: like auto, but --labels DIR is needed."),
    ] = "auto",
    classes: Annotated[
        str | None,
        typer.Option(help="Class names in label order, with commas, or a file with one per line."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="A file with the labels of an array file, or a folder of FKD label batches."
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Per channel, with commas: the arrays are normalized with it."),
    ] = None,
    std: Annotated[str | None, typer.Option(help="Per channel, with commas.")] = None,
    entry: Annotated[int, typer.Option(min=0, help="Of a file with several sets.")] = 0,
    values: Annotated[
        Literal["auto", "logits", "probabilities"],
        typer.Option(help="What rows of numbers in place of class numbers are."),
    ] = "auto",
    order: Annotated[
        str,
        typer.Option(
            help="Of label batches: stored, the seed of a RandomSampler, or auto for the one that "
            "fits the images."
        ),
    ] = "auto",
    view_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the views of label batches; default: of the images."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a Hub dataset.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of a Hub dataset.")] = "train",
    version: Annotated[str, typer.Option(help="Of the artifact.")] = "1.0.0",
    method: Annotated[
        str | None, typer.Option(help="That made it, as its makers call it; default: unknown.")
    ] = None,
    made_from: Annotated[
        str | None, typer.Option("--made-from", help="The real images; default: unknown.")
    ] = None,
    real_pixels: Annotated[
        bool | None,
        typer.Option(
            "--real-pixels/--no-real-pixels",
            help="Whether its images are copies of real ones; default: unknown.",
        ),
    ] = None,
    license_: Annotated[
        str,
        typer.Option(
            "--license",
            help="Of the set, as the Hub spells it; other needs --license-name and --license-link.",
        ),
    ] = "unknown",
    license_name: Annotated[
        str | None, typer.Option(help="Of a license that the Hub has no word for.")
    ] = None,
    license_link: Annotated[
        str | None, typer.Option(help="Where that license can be read.")
    ] = None,
    source_license: Annotated[
        str | None, typer.Option(help="Of the real images; default: unknown.")
    ] = None,
    redistributable: Annotated[
        Literal["yes", "no", "unknown"],
        typer.Option(help="Whether the real images may be published again."),
    ] = "unknown",
    author: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    note: Annotated[
        list[str] | None, typer.Option(help="A sentence for the card; may be repeated.")
    ] = None,
) -> None:
    """Import a set that others made: data, card and manifest as of a build; the rest is unknown.

    No code in a file is run. The card says what was assumed and what nobody said.
    """
    import re

    from pydantic import ValidationError

    from distillhub.packaging.specs import CardSpec
    from distillhub.pipeline.importing import Claims, import_set
    from distillhub.records.importing import Wishes

    if kind == "fkd" and (labels is None or not labels.is_dir()):
        raise UsageError("--kind fkd needs the folder of the batches", mend="add --labels DIR")
    if labels is not None and not labels.exists():
        raise UsageError(
            "no such file or folder", where=f"--labels {labels}", mend="check the path"
        )
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise UsageError(f"'{version}' is no version", where="--version", mend="such as 1.0.0")
    wishes = Wishes(
        kind="auto" if kind == "fkd" else kind,
        classes=_names(classes),
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        labels=labels,
        entry=entry,
        values=values,
        order=_order(order),
        view_size=None if view_size is None else (view_size, view_size),
        revision=revision,
        split=split,
    )
    try:
        card = CardSpec(
            license=license_,
            license_name=license_name,
            license_link=license_link,
            source_license=source_license,
            redistributable=redistributable,
            authors=tuple(author or ()),
            notes=tuple(note or ()),
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "license"
        if key == "license" and license_ == "other":
            raise UsageError(
                "license other needs a name and a link",
                where="--license other",
                mend="add --license-name and --license-link",
            ) from error
        raise UsageError(
            first["msg"],
            where={"authors": "--author", "notes": "--note"}.get(key, f"--{key.replace('_', '-')}"),
            mend="give one line of text",
        ) from error
    claims = Claims(
        card=card,
        name=name,
        version=version,
        method=method,
        source=made_from,
        real_pixels=real_pixels,
    )
    printer = output()
    manifest = import_set(source, out, wishes, claims)
    content = manifest.content
    printer.heading(f"{content.rows:,} images of {len(content.classes)} classes in {shown(out)}")
    printer.facts([("digest", manifest.digest)])
    printer.next(
        quoted("distillhub", "show", shown(out)),
        f"{quoted('distillhub', 'evaluate', shown(out))} --data REAL_IMAGES --card",
    )


def _names(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    path = Path(text).expanduser()
    if path.is_file():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise UsageError(
                "is no text in UTF-8", where=f"--classes {text}", mend="save it as UTF-8"
            ) from error
        return tuple(line.strip() for line in lines if line.strip())
    return tuple(name.strip() for name in text.split(","))


def _numbers(text: str | None, where: str) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        found = tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"'{text}' is no list of numbers", where=where, mend="such as 0.485,0.456,0.406"
        ) from error
    if not all(-1e6 < number < 1e6 for number in found):
        raise UsageError(
            f"'{text}' is beyond what pixels can be",
            where=where,
            mend="give what the arrays were normalized with",
        )
    return found


def _order(text: str) -> Literal["auto", "stored"] | int:
    if text == "auto":
        return "auto"
    if text == "stored":
        return "stored"
    if text.isdecimal():
        return int(text)
    raise UsageError(f"'{text}' is no order", where="--order", mend="auto, stored, or a seed")
