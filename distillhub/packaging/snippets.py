"""Programs on a card: they run as they stand, in the set's folder or with its published name."""

from distillhub.packaging.decoder import decoder
from distillhub.records.report import EvalReport

_NET = """\
net = nn.Sequential(
    nn.Conv2d({channels}, 64, 3, padding=1), nn.GroupNorm(64, 64), nn.ReLU(), nn.AvgPool2d(2),
    nn.Conv2d(64, 64, 3, padding=1), nn.GroupNorm(64, 64), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
    nn.Flatten(), nn.Linear(64 * 16, {classes}),
)
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)"""

_LOAD = """\
{path}from datasets import load_dataset

train = load_dataset({address}, split="train"){hint}
print(train)"""

_HARD = """\
{path}import numpy as np
import torch
from datasets import load_dataset
from torch import nn
from torch.nn import functional as F

rows = load_dataset({address}, split="train"){held}
images = torch.stack([torch.tensor(np.array(picture)) for picture in rows["image"]]).float() / 255
images = {channels_first}  # [N, C, H, W]
labels = torch.tensor(rows["label"][:])
{unpack}
{net}
for epoch in range(50):
    for batch in torch.randperm(len(images)).split(64):
        loss = F.cross_entropy(net(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()"""

_UNPACK = """
# every stored image is a mosaic of {f} x {f} images: take it apart, bring the parts to full size
n, c, h, w = images.shape
parts = images.reshape(n, c, {f}, h // {f}, {f}, w // {f}).permute(0, 2, 4, 1, 3, 5)
images = F.interpolate(
    parts.reshape(-1, c, h // {f}, w // {f}), (h, w), mode="bilinear", align_corners=False
)
labels = labels.repeat_interleave({f} * {f})
"""

_HELD = """
rows = rows.filter(lambda row: row["image"] is not None)  # until they are materialized"""

_FIRST = """\
# once the pixels of the named images are filled in: distillhub materialize
"""

_SOFT = """\
{path}import distillhub
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

temperature = 4.0
views = distillhub.load({address}).torch_dataset(temperature)
# every access to an image shows the next of its stored views
batches = DataLoader(views, batch_size=64, shuffle=True, collate_fn=views.collate)

{net}
for epoch in range(50):
    for images, logits, labels in batches:
        student = F.log_softmax(net(images) / temperature, dim=1)
        teacher = F.log_softmax(logits / temperature, dim=1)
        loss = F.kl_div(student, teacher, log_target=True, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()"""


def load(report: EvalReport) -> str:
    """Open the rows with `datasets` alone."""
    hint = "  # run in the folder of this card" if _is_local(report) else ""
    return _LOAD.format(path=_path(report), address=_address(report), hint=hint)


def look(report: EvalReport) -> str | None:
    """Decode a view and its soft label from the rows that `load` opened; None for hard labels."""
    code = decoder(report.card.data) if report.card and "distillhub" in report.card.data else None
    if code is None:
        return None
    if "def view(rows, views," in code:
        opened = f'views = load_dataset({_address(report, "views")}, split="train")\n'
        return f"{code}\n\n{opened}image, logits = view(train, views, 0, 0)"
    return f"{code}\n\nimage, logits = view(train, 0, 0)"


def train(report: EvalReport) -> str:
    """Train a small network with the labels that the set is sold under."""
    channels = len(report.preprocess.mean)
    net = _NET.format(channels=channels, classes=report.dataset.classes)
    if report.labels.dtype is not None:
        first = _FIRST if _lacks_pixels(report) else ""
        return first + _SOFT.format(path=_path(report), address=_address(report), net=net)
    first = "images.unsqueeze(1)" if channels == 1 else "images.movedim(3, 1)"
    formation = _formation(report)
    return _HARD.format(
        path=_path(report),
        address=_address(report),
        net=net,
        channels_first=first,
        unpack=_UNPACK.format(f=formation) if formation > 1 else "",
        held=_HELD if _lacks_pixels(report) else "",
    )


def _lacks_pixels(report: EvalReport) -> bool:
    """Whether some images are only named."""
    return report.reference is not None and report.reference.materialized_from is None


def _formation(report: EvalReport) -> int:
    """Sub-images per side of a stored image."""
    block = report.card.data.get("distillhub") if report.card else None
    found = block.get("formation", 1) if isinstance(block, dict) else 1
    return found if isinstance(found, int) else 1


def _path(report: EvalReport) -> str:
    """The import that a set without a published name needs."""
    return "from pathlib import Path\n\n" if _is_local(report) else ""


def _is_local(report: EvalReport) -> bool:
    return report.card is None or report.card.repo_id is None


def _address(report: EvalReport, config: str | None = None) -> str:
    """First arguments of `load_dataset` and `distillhub.load`."""
    table = f', "{config}"' if config else ""
    if report.card is None or report.card.repo_id is None:
        return f"str(Path.cwd()){table}"
    return f'"{report.card.repo_id}"{table}, revision="v{report.dataset.version}"'
