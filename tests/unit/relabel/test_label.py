import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distillhub.errors import DivergedError, RecipeError
from distillhub.packaging.parquet import write
from distillhub.records.distilled import load
from distillhub.records.images import EncodedImages
from distillhub.records.label_statistics import label_statistics
from distillhub.records.replay import replay
from distillhub.records.soft_labels import SoftLabels
from distillhub.relabel import label
from distillhub.relabel.files import read_labels, write_labels
from distillhub.relabel.label import relabel
from distillhub.relabel.spec import RelabelSpec, ViewSpec
from tests import fake_sets

CPU = torch.device("cpu")
N, C = 30, 5
MIXED = ViewSpec(flip=True, randaugment=True, cutmix=True)


class Teacher(nn.Module):
    """Fixed random linear map of the picture."""

    def __init__(self, classes=C, seed=0, height=12, width=10):
        super().__init__()
        weight = torch.randn(classes, height * width, generator=fake_sets.generator(seed))
        self.weight = weight

    def forward(self, images):
        return F.linear(images.flatten(1), self.weight)


def finish(work):
    """Run a generator to its end."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def make(spec, *, teachers=None, state=None, image_bytes=None, formation=1, images=None):
    pixels = fake_sets.pixels(N) if images is None else images
    return relabel(
        pixels,
        torch.arange(N) % C,
        spec,
        teachers or [Teacher()],
        image_bytes=image_bytes or sum(len(f) for f in fake_sets.png_files(fake_sets.pixels(N))),
        device=CPU,
        state=state,
        formation=formation,
    )


def package(folder, labels):
    folder.mkdir()
    names = [f"class {c}" for c in range(C)]
    files = fake_sets.png_files(fake_sets.pixels(N))
    write(folder, files, torch.arange(N) % C, names, labels.soft, labels.views, {})
    return load(folder)


def test_a_whole_image_label_is_the_teachers_answer():
    labels = finish(make(RelabelSpec()))

    expected = Teacher()(fake_sets.pixels(N).float() / 255).half()
    assert labels.views is None
    assert labels.soft.codec == "float16"
    torch.testing.assert_close(labels.soft.values[:, 0], expected, rtol=1e-3, atol=1e-3)


def test_labels_of_several_teachers_are_their_mean():
    spec = RelabelSpec()
    one, two = Teacher(seed=1), Teacher(seed=2)

    both = finish(make(spec, teachers=[one, two])).soft.values.float()

    images = fake_sets.pixels(N).float() / 255
    expected = (one(images) + two(images)) / 2
    torch.testing.assert_close(both[:, 0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 7, 30])
def test_replaying_a_stored_view_gives_the_stored_label_for_any_batch(tmp_path, batch):
    labels = finish(make(RelabelSpec(views=MIXED, count=4, codec="float16", budget=10)))
    opened = package(tmp_path / "set", labels)
    order = torch.randperm(N * 4, generator=fake_sets.generator())
    rows, views = order // 4, order % 4

    for start in range(0, N * 4, batch):
        part = slice(start, start + batch)
        images, logits = opened.view_batch(rows[part], views[part], 4.0)
        # the label was rounded to float16: 2^-11 of its size
        torch.testing.assert_close(Teacher()(images), logits, rtol=2**-11, atol=1e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_replaying_in_a_data_loader_gives_the_stored_labels_for_any_workers(tmp_path, workers):
    labels = finish(make(RelabelSpec(views=MIXED, count=3, codec="float16", budget=10)))
    data = package(tmp_path / "set", labels).torch_dataset(4.0)
    loader = torch.utils.data.DataLoader(
        data, batch_size=8, shuffle=True, num_workers=workers, collate_fn=data.collate
    )

    seen = 0
    for images, logits, _ in loader:
        torch.testing.assert_close(Teacher()(images), logits, rtol=2**-11, atol=1e-3)
        seen += len(images)

    assert seen == N


def test_full_box_gives_the_partners_view_and_its_unmixed_label():
    views = fake_sets.views(N, 2, ops=True, mix=True)
    box = torch.zeros_like(views.box)
    box[:] = torch.tensor([0, 0, 12, 10])
    mixed = type(views)(views.crop, views.flip, views.ops, views.partner, box, views.size)
    plain = type(views)(views.crop, views.flip, views.ops, None, None, views.size)
    pixels = fake_sets.pixels(N)
    desk = label._Desk(label._Resident(pixels), mixed, [Teacher()], CPU, 1)
    alone = label._Desk(label._Resident(pixels), plain, [Teacher()], CPU, 1)
    rows, entries = torch.arange(N), torch.arange(N) % 2

    partners = views.partner[rows, entries].long()

    assert torch.equal(desk.logits(rows, entries), alone.logits(partners, entries))


def test_empty_box_gives_the_pure_view():
    views = fake_sets.views(N, 2, ops=True, mix=True)
    empty = type(views)(
        views.crop, views.flip, views.ops, views.partner, torch.zeros_like(views.box), views.size
    )
    plain = type(views)(views.crop, views.flip, views.ops, None, None, views.size)
    pixels = fake_sets.pixels(N)
    rows, entries = torch.arange(N), torch.arange(N) % 2

    one = label._Desk(label._Resident(pixels), empty, [Teacher()], CPU, 1).logits(rows, entries)
    two = label._Desk(label._Resident(pixels), plain, [Teacher()], CPU, 1).logits(rows, entries)

    assert torch.equal(one, two)


def test_an_image_mixed_with_itself_is_unchanged():
    views = fake_sets.views(N, 2, ops=True, mix=True)
    own = torch.arange(N).int()[:, None].expand(N, 2).contiguous()
    itself = type(views)(views.crop, views.flip, views.ops, own, views.box, views.size)
    plain = type(views)(views.crop, views.flip, views.ops, None, None, views.size)
    pixels = fake_sets.pixels(N)
    rows, entries = torch.arange(N), torch.ones(N, dtype=torch.int64)

    one = label._Desk(label._Resident(pixels), itself, [Teacher()], CPU, 1).logits(rows, entries)
    two = label._Desk(label._Resident(pixels), plain, [Teacher()], CPU, 1).logits(rows, entries)

    assert torch.equal(one, two)


def test_budget_holds_as_many_views_as_it_can(tmp_path):
    spec = RelabelSpec(views=ViewSpec(), max_count=64)
    image_bytes = sum(len(f) for f in fake_sets.png_files(fake_sets.pixels(N)))

    chosen = finish(make(spec))
    one_more = finish(
        make(spec.model_copy(update={"count": chosen.record.views + 1, "budget": 10.0}))
    )

    assert chosen.record.bytes_labels <= image_bytes
    assert one_more.record.codec == chosen.record.codec
    assert one_more.record.bytes_labels > image_bytes


def test_bytes_in_the_record_are_those_of_the_package(tmp_path):
    labels = finish(make(RelabelSpec(views=MIXED, max_count=20)))
    (tmp_path / "set").mkdir()
    files = fake_sets.png_files(fake_sets.pixels(N))

    written = write(
        tmp_path / "set",
        files,
        torch.arange(N) % C,
        [str(c) for c in range(C)],
        labels.soft,
        labels.views,
        {},
    )

    found = {k: v for k, v in written.column_bytes.items() if k not in ("image", "label")}
    assert found == labels.record.bytes


def test_max_count_limits_the_views():
    labels = finish(make(RelabelSpec(views=ViewSpec(), max_count=2), image_bytes=10**6))

    assert labels.record.views == 2
    assert labels.record.codec == "float16"  # uint8 would not buy more views


def test_uint8_is_chosen_where_it_buys_more_views():
    wide = [Teacher(classes=100)]
    labels = finish(make(RelabelSpec(views=ViewSpec()), teachers=wide, image_bytes=20_000))

    assert labels.record.codec == "uint8"


def test_labels_that_never_fit_are_refused_with_both_sizes():
    with pytest.raises(
        RecipeError, match=r"1 view per image take \d+ bytes; the budget of 1 x 100"
    ):
        finish(make(RelabelSpec(), image_bytes=100))


def test_a_fixed_count_beyond_the_budget_is_refused_before_the_work():
    work = make(RelabelSpec(views=ViewSpec(), count=50))

    with pytest.raises(RecipeError, match="labels of 50 views per image take"):
        next(work)


@pytest.mark.parametrize("cut", [1, 2, 5, 9])
def test_a_cut_anywhere_gives_the_same_labels(cut, monkeypatch):
    monkeypatch.setattr(label, "BATCH", 11)
    spec = RelabelSpec(views=MIXED, max_count=40)
    whole = finish(make(spec))
    work = make(spec)
    for _ in range(cut):
        progress = next(work)
    state = {
        key: value.clone() if isinstance(value, torch.Tensor) else value
        for key, value in progress.snapshot().items()
    }

    resumed_work = make(spec, state=state)
    first = next(resumed_work)
    resumed = finish(resumed_work)

    assert first.done > progress.done
    assert resumed.record == whole.record
    assert torch.equal(resumed.soft.values, whole.soft.values)
    assert torch.equal(resumed.views.crop, whole.views.crop)


def test_a_snapshot_that_measured_less_is_not_gone_on_from(monkeypatch):
    monkeypatch.setattr(label, "BATCH", 11)
    spec = RelabelSpec(views=MIXED, max_count=40)
    work = make(spec)
    for _ in range(5):
        progress = next(work)
    state = progress.snapshot()

    again = make(spec, state={**state, "errors": state["errors"][:, :3]})

    assert next(again).done == 11
    assert finish(again).record == finish(make(spec)).record


def test_packed_images_are_labelled_sub_image_by_sub_image():
    labels = finish(make(RelabelSpec(budget=10), formation=2))

    quarter = fake_sets.pixels(N)[:, :, 6:, :5].float() / 255  # sub-image 2: bottom left
    shown = F.interpolate(quarter, (12, 10), mode="bilinear", align_corners=False)
    assert labels.soft.entries == 4
    torch.testing.assert_close(
        labels.soft.values[:, 2].float(), Teacher()(shown), rtol=2**-10, atol=2e-3
    )


@pytest.mark.parametrize("formation", [1, 2])
def test_every_entry_is_the_answer_to_its_own_view(formation):
    spec = RelabelSpec(views=ViewSpec(flip=True), count=3, codec="float16", budget=20)

    labels = finish(make(spec, formation=formation))

    rows = torch.arange(N)
    assert labels.views.entries == labels.soft.entries == 3 * formation**2
    for entry in range(labels.soft.entries):
        place = torch.full_like(rows, entry)
        shown = replay(fake_sets.pixels(N).__getitem__, labels.views, rows, place)
        stored = labels.soft.values[:, entry].float()
        torch.testing.assert_close(Teacher()(shown), stored, rtol=2**-11, atol=1e-3)


def test_top_k_is_chosen_for_many_classes():
    labels = finish(make(RelabelSpec(budget=10), teachers=[Teacher(classes=300)]))

    assert labels.record.kept == 50


def test_nan_logits_stop_the_work():
    def broken(images):
        return torch.full((len(images), C), float("nan"))

    with pytest.raises(DivergedError, match="no finite logits for image 0, view 0"):
        finish(make(RelabelSpec(), teachers=[broken]))


def test_images_may_be_decoded_on_demand():
    files = fake_sets.png_files(fake_sets.pixels(N))

    lazy = finish(make(RelabelSpec(), images=EncodedImages.of(files)))

    assert torch.equal(lazy.soft.values, finish(make(RelabelSpec())).soft.values)


@pytest.mark.parametrize("views", [None, MIXED])
def test_labels_come_back_from_their_folder(tmp_path, views):
    labels = finish(make(RelabelSpec(views=views, budget=3)))

    write_labels(tmp_path, labels)
    found = read_labels(tmp_path)

    assert torch.equal(found.soft.values, labels.soft.values)
    assert found.record == labels.record
    assert (found.views is None) == (views is None)
    if views is not None:
        assert torch.equal(found.views.box, labels.views.box)


def test_no_labels_come_back_as_none(tmp_path):
    write_labels(tmp_path, None)

    assert read_labels(tmp_path) is None


def test_agreement_is_the_share_of_labels_whose_best_class_is_the_label():
    logits = torch.zeros(4, 1, 3)
    logits[torch.arange(4), 0, torch.tensor([0, 1, 2, 2])] = 5

    found = label_statistics(SoftLabels.encode(logits, codec="float16"), torch.tensor([0, 1, 2, 0]))

    assert found.teacher_agreement == 0.75


def test_agreement_is_that_of_the_stored_columns_also_where_logits_are_equal():
    from distillhub.packaging.labels import agreement
    from distillhub.records.columns import arrays

    logits = torch.tensor([0.0, 9.0, 9.001, 8.0]).expand(6, 2, 4)  # equal after rounding
    labels = torch.tensor([0, 1, 2, 3, 1, 2])
    for codec, top_k in (("uint8", 3), ("uint8", None), ("float16", 2)):
        soft = SoftLabels.encode(logits, codec=codec, top_k=top_k)
        flat = {name: a.reshape(6, -1) for name, a in arrays(soft, fake_sets.views(6, 2)).items()}

        found = label_statistics(soft, labels)

        assert found.teacher_agreement == agreement(flat, labels.numpy())


def test_entropy_of_equal_logits_is_that_of_the_uniform_distribution():
    soft = SoftLabels.encode(torch.zeros(2, 3, 8), codec="float16")

    found = label_statistics(soft, torch.zeros(2, dtype=torch.int64))

    assert found.entropy_1 == pytest.approx(3 * torch.log(torch.tensor(2.0)).item())
    assert found.confidence == pytest.approx(1 / 8)


def train_linear(batches):
    """Three steps of a student; its weights after every step."""
    student = nn.Linear(120, C)
    with torch.no_grad():
        student.weight.fill_(0.01)
        student.bias.zero_()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    weights = []
    for images, logits in batches:
        predicted = F.log_softmax(student(images.flatten(1)) / 4, dim=1)
        target = F.log_softmax(logits / 4, dim=1)
        loss = F.kl_div(predicted, target, log_target=True, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        weights.append(student.weight.detach().clone())
    return weights


def test_training_on_stored_labels_equals_training_on_online_labels(tmp_path):
    def teacher(images):
        return Teacher()(images).half().float()  # what float16 can store

    spec = RelabelSpec(views=MIXED, count=3, codec="float16", budget=10)
    labels = finish(make(spec, teachers=[teacher]))
    opened = package(tmp_path / "set", labels)
    rows = torch.randperm(N, generator=fake_sets.generator())[:16]
    steps = [(rows, torch.full_like(rows, view)) for view in range(3)]

    stored = train_linear(opened.view_batch(*step, 4.0) for step in steps)
    shown = [replay(fake_sets.pixels(N).__getitem__, labels.views, *step) for step in steps]
    online = train_linear((images, teacher(images)) for images in shown)

    for one, two in zip(stored, online, strict=True):
        # a matrix product of 16 rows and one of 30 may differ in the last bit before rounding
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
