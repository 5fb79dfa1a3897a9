"""`docs/protocols.md`, made from the protocols: `python -m tests.protocol_page` writes it."""

from pathlib import Path

from distillhub.evaluation import protocols
from distillhub.evaluation.protocol import Protocol

PAGE = Path(__file__).resolve().parent.parent / "docs" / "protocols.md"
_HEAD = """\
# Protocols

How students are trained and tested. A protocol is frozen: another value has another name, and its
digest stands in every report. Fields that a protocol does not list have the defaults at the end;
`distillhub/evaluation/protocol.py` says what each means. Arm `full_hard` has a protocol of its own,
`full-1@<name>`, which takes students, sizes and augmentation from the one it stands beside.

The headline accuracy is that of the last epoch. Protocols with `best_every` also look at the test
set on the way, because the papers they are from report the best epoch: that figure is a selection
on the test set, and every card says so beside it.

Batch, steps per epoch, rate and epochs of the protocols for 10 classes, by images in the set:

{ten}

Of those for ImageNet-1k:

{thousand}
"""
_SETS = {10: (100, 500, 1000, 2000, 6000, 7000), 1000: (10_000, 50_000, 700_000)}
"""Images, by classes."""
_APART = ("name", "summary", "source", "optimizer")


def page() -> str:
    """The whole page."""
    parts = [_HEAD.format(ten=_batches(10), thousand=_batches(1000))]
    parts += [_section(protocols.get(name)) for name in protocols.names()]
    return "\n".join([*parts, _defaults()])


def _section(protocol: Protocol) -> str:
    said = protocol.model_dump(exclude_defaults=True)
    rows = [f"| `{name}` | {_value(value)} |" for name, value in said.items() if name not in _APART]
    lines = [
        f"## {protocol.name}",
        "",
        protocol.summary,
        "",
        f"Source: {protocol.source}. Digest: `{protocol.sha256[:12]}`.",
        "",
        "| field | value |",
        "|---|---|",
        f"| `optimizer` | {protocol.optimizer} |",
        *rows,
        "",
    ]
    return "\n".join(lines)


def _batches(classes: int) -> str:
    large = classes > 10
    native = [n for n in protocols.names() if n.startswith("dsco-") and ("in1k" in n) == large]
    head = ["images", *(f"`{name}`" for name in native)]
    rows = [
        [f"{images:,}", *(_length(name, images, classes) for name in native)]
        for images in _SETS[classes]
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _length(name: str, images: int, classes: int) -> str:
    found = protocols.get(name).length(images, classes)
    return f"{found.batch} x {found.per_epoch:,}, lr {found.lr:.3g}, {found.epochs:,} epochs"


def _defaults() -> str:
    fields = Protocol.model_fields.items()
    rows = [
        f"| `{name}` | {_value(field.get_default(call_default_factory=True))} |"
        for name, field in fields
        if name not in _APART and not field.is_required()
    ]
    return "\n".join(["## Defaults", "", "| field | value |", "|---|---|", *rows, ""])


def _value(value: object) -> str:
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_value(part)}" for key, part in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(_pair(part) for part in value)
    return str(value)


def _pair(part: object) -> str:
    if isinstance(part, tuple | list):
        return f"{_value(part[1])} up to {part[0]} images per class"
    return _value(part)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
