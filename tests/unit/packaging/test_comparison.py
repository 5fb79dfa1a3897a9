"""What differs between two sets: images by pixels, labels, recipe, metrics."""

import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distillhub.errors import UsageError
from distillhub.packaging import comparison
from distillhub.packaging.card import build_card
from distillhub.packaging.comparison import compare, differing, flattened
from tests.unit.packaging import sample
from tests.unit.packaging.corruption import Rows, rewrite

Make = Callable[[Callable[[Rows], object]], Path]
FIRST, LAST = sample.CLASSES[0], sample.CLASSES[-1]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diff") / "set"
    sample.build(folder)
    return folder


@pytest.fixture
def other(base: Path, tmp_path: Path) -> Make:
    """`other(change)`: the set with other rows."""

    def make(change: Callable[[Rows], object]) -> Path:
        shutil.copytree(base, tmp_path / "other")
        rewrite(tmp_path / "other", change)
        return tmp_path / "other"

    return make


def picture(row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]["bytes"]))


def write(row: dict[str, Any], image: Image.Image, **options: Any) -> None:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    row["image"]["bytes"] = stream.getvalue()


def darkened(rows: Rows, number: int) -> None:
    image = picture(rows[number])
    image.putpixel((0, 0), 255 - image.getpixel((0, 0)))
    write(rows[number], image)


def numbers(base: Path, folder: Path) -> dict[str, tuple[int, ...]]:
    return {part.name: part[1:] for part in compare(base, folder).images.classes}


def test_a_set_is_equal_to_itself(base: Path):
    found = compare(base, base)

    assert found.equal
    assert found.images.equal
    assert found.recipe == ()
    assert {one.difference for one in found.metrics} == {0.0}


def test_a_changed_pixel_is_one_changed_image_of_its_class(base: Path, other: Make):
    folder = other(lambda rows: darkened(rows, 5))

    assert numbers(base, folder)[sample.CLASSES[1]] == (3, 1, 0, 0)
    assert numbers(base, folder)[FIRST] == (4, 0, 0, 0)


def test_the_order_of_rows_changes_no_image(base: Path, other: Make):
    assert compare(base, other(lambda rows: rows.insert(0, rows.pop(7)))).images.equal


def test_another_encoding_of_the_same_pixels_changes_no_image(base: Path, other: Make):
    folder = other(lambda rows: write(rows[2], picture(rows[2]), compress_level=0))

    assert compare(base, folder).images.equal


def test_rows_dropped_and_added_are_told_by_class(base: Path, other: Make):
    def change(rows: Rows) -> None:
        rows.append(dict(rows[-1], image=dict(rows[-1]["image"])))
        darkened(rows, -1)
        del rows[0]

    folder = other(change)

    assert numbers(base, folder)[FIRST] == (3, 0, 0, 1)
    assert numbers(base, folder)[LAST] == (4, 0, 1, 0)


def test_an_image_under_another_class_is_removed_there_and_added_here(base: Path, other: Make):
    folder = other(lambda rows: rows[0].update(label=2))

    assert numbers(base, folder)[FIRST] == (3, 0, 0, 1)
    assert numbers(base, folder)[LAST] == (4, 0, 1, 0)


def test_labels_of_unchanged_images_are_compared_by_kl(base: Path, other: Make):
    def change(rows: Rows) -> None:
        rows[3]["soft_val"][:3] = [0.0, 0.0, math.log(2)]  # p = 1/4, 1/4, 1/2
        darkened(rows, 8)

    before: list[list[float]] = []
    folder = other(lambda rows: (before.append(rows[3]["soft_val"][:3]), change(rows)))
    total = sum(map(math.exp, before[0]))
    p = [math.exp(value) / total for value in before[0]]
    kl = sum(x * math.log(x / y) for x, y in zip(p, (0.25, 0.25, 0.5), strict=True))

    found = compare(base, folder).divergence

    assert found is not None
    assert found.labels == 11 * sample.VIEWS
    assert found.kl_1 == pytest.approx(kl / found.labels, abs=1e-4)


def test_labels_of_other_views_are_not_compared(base: Path, other: Make):
    def change(rows: Rows) -> None:
        for row in rows[1:]:
            row["view_flip"] = [not flip for flip in row["view_flip"]]

    found = compare(base, other(change)).divergence

    assert found is not None
    assert found.labels == sample.VIEWS
    assert found.kl_1 == 0


def test_hard_and_soft_labels_are_not_compared(base: Path, tmp_path: Path):
    sample.build(tmp_path / "hard", soft=False)

    found = compare(base, tmp_path / "hard")

    assert found.divergence is None
    assert found.statistics[1] is None
    assert found.images.equal


def test_metrics_stand_side_by_side_with_their_difference(base: Path, tmp_path: Path):
    better = sample.report(arms=sample.MEANS | {"syn_hard": sample.MEANS["syn_hard"] + 0.05})
    (tmp_path / "set").mkdir()
    build_card(sample.inputs(base.with_name("set-package"), better), tmp_path / "set")

    (found,) = (m for m in compare(base, tmp_path / "set").metrics if m.name == "top1.syn_hard")

    assert found.difference == pytest.approx(0.05)
    assert found.a is not None
    assert found.a.ci95 is not None


def test_other_editions_of_a_protocol_are_not_compared(base: Path, tmp_path: Path):
    shutil.copytree(base, tmp_path / "set")
    path = tmp_path / "set/eval.json"
    content = json.loads(path.read_text())
    content["protocols"]["digits-1"]["sha256"] = "0" * 64
    path.write_text(json.dumps(content))

    found = compare(base, tmp_path / "set")

    assert found.metrics == ()
    assert len(found.apart) == 2


def test_recipe_keys_are_dotted_and_lists_of_blocks_numbered():
    a = {"method": {"lr": 1.0}, "evaluate": [{"runs": 3}], "sizes": [1, 2], "teacher": None}
    b = {"method": {"lr": 2.0}, "evaluate": [{"runs": 5}], "sizes": [1], "teacher": {}}

    found = differing(dict(flattened(a)), dict(flattened(b)))

    assert [tuple(one) for one in found] == [
        ("method.lr", 1.0, 2.0), ("evaluate.0.runs", 3, 5), ("sizes", [1, 2], [1]),
        ("teacher", None, {}),
    ]  # fmt: skip


def test_a_picture_shows_changed_images_before_and_after(base: Path, other: Make, tmp_path: Path):
    found = compare(base, other(lambda rows: darkened(rows, 5)))

    assert comparison.draw(found, tmp_path / "p.png")

    with Image.open(tmp_path / "p.png") as image:
        sheet = image.convert("L")
    height = sheet.height // 2
    x = sheet.width - 70  # inside the first pixel of the only column
    assert sheet.getpixel((x, 10)) == 255 - sheet.getpixel((x, 10 + height))


def test_nothing_is_drawn_of_equal_sets(base: Path, tmp_path: Path):
    assert not comparison.draw(compare(base, base), tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()


def test_a_folder_of_others_is_refused(base: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="holds no set"):
        compare(base, tmp_path)
