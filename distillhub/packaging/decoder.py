"""The lines on the card that read soft labels and views without this package."""

from collections.abc import Iterator, Mapping

from distillhub.records.references import REFERENCE

_HEAD = '''\
import torch
from torch.nn import functional as F


def view({arguments}):
    """Image [C, h, w] in [0, 1] of view k of a row, and logits for a softmax at temperature T."""
'''
_BESIDE = """\
    entry = rows.with_format("torch")[row]
    image, _ = entry.pop("image")[None] / 255, entry.pop("label")
    entry = {{name: values.reshape({entries}, -1)[k] for name, values in entry.items()}}
"""
_UNNAMED = """\
    rows = rows.remove_columns({columns})  # what names real images
"""
_APART = """\
    image = rows.with_format("torch")[row]["image"][None] / 255
    entry = views.with_format("torch")[k * len(rows) + row]  # the configuration "views"
"""
_CROP = """\
    top, left, tall, wide = entry["view_crop"].tolist()
    image = image[:, :, top : top + tall, left : left + wide]
    image = F.interpolate(image, {size}, mode="bilinear", align_corners=False)
    image = image.flip(3) if entry["view_flip"].item() else image
"""
_OPS = """\
    # the RandAugment operations of view_ops are left out here; distillhub.load replays them
"""
_MIX = """\
    top, left, end, side = entry["mix_box"].tolist() if mixed else [0] * 4
    if end:
        partner, _ = view({again}int(entry["mix_partner"]), k, T, mixed=False)
        image[:, :, top:end, left:side] = partner[:, top:end, left:side]
"""
_RANGE = """\
    low, high = entry["soft_range"].tolist()
    logits = low + entry["soft_val"] * ((high - low) / 255)
"""
_PLAIN = """\
    logits = entry["soft_val"].float()
"""
_TOP = """\
    mean, std = entry["soft_rest"].tolist()  # of the logits that are not stored
    rest = min(mean + std**2 / (2 * T), logits[-1].item())
    logits = torch.full(({classes},), rest).scatter(0, entry["soft_idx"], logits)
"""


def decoder(front_matter: Mapping[str, object]) -> str | None:
    """Python source of a function `view` that gives one view of one image with its label.

    The text has only the lines that the set needs, and uses torch and `datasets`. RandAugment is
    left out, which a comment says.

    Args:
        front_matter: `dataset_info` and `distillhub` of the README, as `packaging.parquet.write`
            makes them.

    Returns:
        A function `view(rows, row, k, T=4.0)`, where rows is the opened set; beyond 64 views
        per image `view(rows, views, row, k, T=4.0)`. None for a set without soft labels.
    """
    block = front_matter["distillhub"]
    columns = set(_columns(front_matter["dataset_info"]))
    if not isinstance(block, Mapping) or "soft_val" not in columns:
        return None
    labels, views = block["labels"], block["views"]
    apart = "config" in views
    entries = views["count"] * views.get("formation", 1) ** 2
    named = "rows, views, " if apart else "rows, "
    mixed = "mix_box" in columns
    unnamed = [name for name in REFERENCE if name in columns]
    parts = [
        _HEAD.format(arguments=f"{named}row, k, T=4.0" + (", mixed=True" if mixed else "")),
        _UNNAMED.format(columns=unnamed) if unnamed else "",
        _APART if apart else _BESIDE.format(entries=entries),
    ]
    if "view_crop" in columns:
        parts.append(_CROP.format(size=tuple(views["size"])))
    if "view_ops" in columns:
        parts.append(_OPS)
    if mixed:
        parts.append(_MIX.format(again=named))
    parts.append(_RANGE if "soft_range" in columns else _PLAIN)
    if "soft_idx" in columns:
        parts.append(_TOP.format(classes=labels["classes"]))
    parts.append("    return image[0], logits\n")
    return "".join(parts)


def _columns(info: object) -> Iterator[str]:
    """Names of the columns in `dataset_info`, of one table or a list of them."""
    for table in info if isinstance(info, list) else [info]:
        for feature in table["features"] if isinstance(table, Mapping) else []:
            yield feature["name"]
