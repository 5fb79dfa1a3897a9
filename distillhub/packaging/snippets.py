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

rows = load_dataset({address}, split="train")
images = torch.stack([torch.tensor(np.array(picture)) for picture in rows["image"]]).float() / 255
images = {channels_first}  # [N, C, H, W]
labels = torch.tensor(rows["label"][:])

{net}
for epoch in range(50):
    for batch in torch.randperm(len(images)).split(64):
        loss = F.cross_entropy(net(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()"""

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
        return _SOFT.format(path=_path(report), address=_address(report), net=net)
    first = "images.unsqueeze(1)" if channels == 1 else "images.movedim(3, 1)"
    return _HARD.format(path=_path(report), address=_address(report), net=net, channels_first=first)


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
