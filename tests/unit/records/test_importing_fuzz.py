"""1000 broken sets of others: a clear error or a right import, never a traceback."""

import io
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distillhub.errors import DistillhubError
from distillhub.records.importing import Wishes, read_foreign
from tests.foreign_sets import arrays, label_folder, pictures, save

INPUTS = 1000
SEED = 20250731
IMAGES, LABELS = arrays(6, 3, 4)
ODD = [0, 1, -1, 2, 7, 255, 2**31 - 1, 2**40, float("nan"), float("inf"), -1e30]


def torch_bases(folder: Path) -> list[bytes]:
    contents = [
        {"images": IMAGES, "labels": LABELS},
        [IMAGES * 255, LABELS.int()],
        {"data": [[IMAGES, LABELS], [IMAGES, LABELS]], "accs": [np.float64(1.0)]},
        {"x": IMAGES[:, :1], "y": torch.eye(3)[LABELS]},
        [IMAGES.half(), torch.randn(6, 3, generator=torch.Generator().manual_seed(3))],
    ]
    return [save(content, folder / "base.pt").read_bytes() for content in contents]


def numpy_bases() -> list[bytes]:
    found = []
    for compressed in (False, True):
        out = io.BytesIO()
        write = np.savez_compressed if compressed else np.savez
        write(out, images=IMAGES.numpy(), labels=LABELS.numpy())
        found.append(out.getvalue())
    return found


def flipped(content: bytes, draw: random.Random) -> bytes:
    """A few bits elsewhere; half of the time in the first bytes, where the structure is."""
    changed = bytearray(content)
    reach = len(changed) if draw.random() < 0.5 else min(len(changed), 1500)
    for _ in range(draw.randint(1, 12)):
        changed[draw.randrange(reach)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def grown(content: bytes, draw: random.Random) -> bytes:
    """An archive whose directory declares another size of some entry."""
    changed = bytearray(content)
    places = [at for at in range(len(changed) - 4) if changed[at : at + 4] == b"PK\x01\x02"]
    at = draw.choice(places)
    changed[at + 20 : at + 28] = struct.pack("<II", *(draw.choice([0, 9, 2**31, 2**32 - 1]),) * 2)
    return bytes(changed)


def renamed(content: bytes, draw: random.Random) -> bytes:
    """The same entries under names that lead out of the archive, doubled or gone."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            odd = draw.choice([name, name, f"../../{name}", f"/etc/{name}", "", f"{name}\0x"])
            if odd:
                new.writestr(odd, old.read(name))
    return out.getvalue()


def odd_array(draw: random.Random):
    """Shapes, types and values that people do not mean."""
    shape = tuple(draw.choice([0, 1, 2, 3, 4, 6, 7]) for _ in range(draw.randint(0, 5)))
    kinds = [torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool, torch.complex64]
    kinds += [torch.bfloat16, torch.float64, torch.int8]
    tensor = torch.zeros(shape).to(draw.choice(kinds))
    if tensor.numel() and not tensor.is_complex() and draw.random() < 0.7:
        flat = tensor.view(-1)
        value = draw.choice(ODD)
        if tensor.dtype.is_floating_point or (value == value and abs(value) < 127):
            flat[draw.randrange(len(flat))] = value
    if draw.random() < 0.1:
        tensor = torch.zeros(1).expand(10**9)
    if draw.random() < 0.1:
        tensor = torch.eye(4).to_sparse()
    return tensor


def odd_content(draw: random.Random):
    """Right arrays and odd ones in any arrangement."""
    images = draw.choice([IMAGES, IMAGES, odd_array(draw)])
    labels = draw.choice([LABELS, LABELS, odd_array(draw), draw.choice(ODD), "labels", None])
    forms = [
        {"images": images, "labels": labels},
        [images, labels],
        {"data": [[images, labels]]},
        {"data": images, "targets": labels},
        {"images": images, "soft_labels": labels, "labels": LABELS},
        [images],
        images,
        {},
    ]
    return draw.choice(forms)


def right(foreign) -> bool:
    """Whether what came in is a set: images of one size, and labels that belong to them."""
    for file in foreign.files:
        with Image.open(io.BytesIO(file)) as image:
            image.load()
            assert (len(image.getbands()), image.height, image.width) == foreign.size
    n, classes = len(foreign.files), len(foreign.class_names)
    assert foreign.labels.shape == (n,)
    assert 0 <= int(foreign.labels.min()) <= int(foreign.labels.max()) < classes
    assert sum(foreign.counts) == n
    if foreign.soft is not None:
        assert len(foreign.soft) == n
        assert foreign.soft.num_classes == classes
        assert bool(foreign.soft.values.isfinite().all())
    if foreign.views is not None:
        assert len(foreign.views) == n
        ends = foreign.views.crop[..., :2] + foreign.views.crop[..., 2:]
        assert bool((foreign.views.crop >= 0).all())
        assert bool((ends <= torch.tensor(foreign.size[1:])).all())
    return True


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    pictures(root / "images", per_class=4)
    label_folder(root / "labels", torch.arange(3).repeat_interleave(4), batch=12)
    return root


def one(number: int, draw: random.Random, folder: Path, bases, labelled: Path) -> str:
    """Make an input, try it, and say how it ended."""
    wishes = Wishes()
    source = folder / f"x{draw.choice(['.pt', '.npz'])}"
    kind = number % 4
    if kind == 3:
        source = labelled / "images"
        wishes = Wishes(labels=folder / "labels")
        (folder / "labels").mkdir(exist_ok=True)
        base = (labelled / "labels" / "epoch_0" / "batch_0.tar").read_bytes()
        change = draw.choice([flipped, cut, grown, renamed, None])
        content = base if change is None else change(base, draw)
        if change is None:
            batch = torch.load(io.BytesIO(base), weights_only=False)  # noqa: TID251 - ours
            batch[draw.randrange(6)] = draw.choice([odd_array(draw), None, [1, 2], "x"])
            save(batch, folder / "labels" / "batch_0.tar")
        else:
            (folder / "labels" / "batch_0.tar").write_bytes(content)
    elif kind == 2:
        source = source.with_suffix(".pt")
        save(odd_content(draw), source)
    else:
        base = draw.choice(bases[source.suffix])
        source.write_bytes(draw.choice([flipped, flipped, cut, grown, renamed])(base, draw))
    try:
        foreign = read_foreign(str(source), wishes)
    except DistillhubError as error:
        return "refused" if all(fault.what for fault in error.faults) else "unclear"
    return "right" if right(foreign) else "wrong"


def test_a_thousand_broken_inputs_end_in_a_clear_error_or_a_right_import(tmp_path, labelled):
    draw = random.Random(SEED)
    bases = {".pt": torch_bases(tmp_path), ".npz": numpy_bases()}

    ends = [one(number, draw, tmp_path, bases, labelled) for number in range(INPUTS)]

    assert len(ends) == INPUTS
    assert set(ends) == {"right", "refused"}
    assert min(ends.count("right"), ends.count("refused")) > INPUTS // 20
