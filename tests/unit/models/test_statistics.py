"""Statistics of observers against a slow loop over images, layers and classes."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import distillhub.models.measuring as measuring
from distillhub.models.statistics import (
    CollectSpec,
    ObserverStatistics,
    TapSpec,
    collect,
    layers_of,
    measured,
)
from distillhub.models.taps import tap
from distillhub.models.tensorfile import read_tensors, write_tensors
from distillhub.models.zoo import build
from distillhub.ops.feature_moments import FeatureMoments
from distillhub.units import derive_seed
from tests.fakes import stored, tiny_data

ARCHS = ["convnet2-w4", "convnet2-w4-bn", "mobilenetv2-0.5", "torchvision:mobilenet_v3_small"]
"""Instance norm; batch norm; depthwise convolutions and 1 x 1 maps; squeeze and excitation."""
WHOLE = CollectSpec(augment="none", batch=5, seed=3)


def observer(arch, data):
    net = build(
        arch,
        num_classes=data.num_classes,
        channels=data.channels,
        height=data.height,
        width=data.width,
        mean=data.mean,
        std=data.std,
        seed=1,
    )
    with torch.no_grad():
        net.train()(data.images(range(len(data))))  # running statistics near those of the data
    return net.freeze()


def images_for(arch):
    return tiny_data(channels=3, side=8 if arch.startswith("convnet") else 32, per_class=4)


def a_pass(arch="convnet2-w4-bn", *, spec=WHOLE, taps=None, state=None, data=None):
    data = data or images_for(arch)
    net = observer(arch, data)
    taps = taps or TapSpec()
    return collect(net, "a" * 64, data, taps, spec, device=torch.device("cpu"), state=state)


def finish(run):
    reports = []
    while True:
        try:
            reports.append(next(run))
        except StopIteration as end:
            return end.value, reports


def parts_of(statistics):
    for path, layer in statistics.layers.items():
        for what, moments in zip(("overall", "classes", "totals"), layer[1:], strict=True):
            for stat, value in moments._asdict().items():
                if value is not None:
                    yield f"{path} {what} {stat}", value


def cells(maps, side):
    """The s x s cells of maps, resized up to whole ones."""
    h, w = (-(-length // side) for length in maps.shape[2:])
    if (h * side, w * side) != tuple(maps.shape[2:]):
        maps = nn.functional.interpolate(maps, size=(h * side, w * side), mode="bilinear")
    return [c for row in maps.split(side, 2) for c in row.split(side, 3)]


def slow_moments(maps, side):
    maps = maps.double()
    pieces = cells(maps, side)
    return (
        maps.mean((0, 2, 3)),
        maps.var((0, 2, 3), correction=0),
        torch.stack([cell.mean() for cell in pieces]),
        torch.stack([cell.var(correction=0) for cell in pieces]),
    )


def inputs(net, images):
    with torch.no_grad(), tap(net, (nn.Conv2d, nn.BatchNorm2d)) as seen:
        net(images)
    return seen


def assert_near(ours, theirs):
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ARCHS)
def test_class_targets_are_those_of_a_loop_over_images(arch):
    data = images_for(arch)
    seen = inputs(observer(arch, data), data.images(range(len(data))))

    found, _ = finish(a_pass(arch))

    assert list(found.layers) == list(seen)
    for path, layer in found.layers.items():
        alone = [slow_moments(seen[path][i : i + 1], 4) for i in range(len(data))]
        for label in range(data.num_classes):
            images = [alone[i] for i in data.rows_of(label).tolist()]
            for k in range(2 if layer.kind == "bn" else 4):
                values = torch.stack([image[k] for image in images])
                within = total = values.mean(0)
                if k % 2:  # a variance: that of the images' means comes on top
                    means = torch.stack([image[k - 1] for image in images])
                    total = within + means.var(0, correction=0)
                assert_near(layer.classes[k][label], within)
                assert_near(layer.totals[k][label], total)


@pytest.mark.parametrize("arch", ARCHS)
def test_overall_targets_of_convolutions_are_means_over_batches_weighted_by_size(arch):
    data = images_for(arch)
    net = observer(arch, data)
    order = torch.Generator().manual_seed(derive_seed(WHOLE.seed, "statistics", "order"))
    wanted: dict[str, list[torch.Tensor]] = {}
    for rows in torch.randperm(len(data), generator=order).split(WHOLE.batch):  # 5, 5 and 2 images
        for path, maps in inputs(net, data.images(rows)).items():
            batch = slow_moments(maps, 4)
            before = wanted.get(path, [0, 0, 0, 0])
            wanted[path] = [a + b * len(rows) / 12 for a, b in zip(before, batch, strict=True)]

    found, _ = finish(a_pass(arch))

    for path, layer in found.layers.items():
        if layer.kind == "conv":
            for ours, theirs in zip(layer.overall, wanted[path], strict=True):
                assert_near(ours, theirs)


def test_overall_targets_of_batch_norms_are_their_running_statistics():
    net = observer("convnet2-w4-bn", images_for("convnet2-w4-bn"))

    found, _ = finish(a_pass())

    layers = {path: layer for path, layer in found.layers.items() if layer.kind == "bn"}
    assert len(layers) == 2
    for path, layer in layers.items():
        module = net.get_submodule(path)
        assert torch.equal(layer.overall.mean, module.running_mean)
        assert torch.equal(layer.overall.var, module.running_var)
        assert layer.overall.patch_mean is None


@pytest.mark.parametrize("arch", ["convnet2-w4", "mobilenetv2-0.5"])
def test_14_04_the_real_images_themselves_have_the_overall_statistics_of_convolutions(arch):
    data = images_for(arch)
    found, _ = finish(a_pass(arch, spec=CollectSpec(augment="none", batch=len(data))))
    net = observer(arch, data)

    with torch.no_grad(), measured(net, TapSpec(bn=False)) as moments:
        net(data.images(range(len(data))))

    for path, own in moments.items():
        for ours, theirs in zip(own, found.layers[path].overall, strict=True):
            assert_near(ours, theirs)


@pytest.mark.parametrize("augment", ["none", "flip", "flip_shift", "crop_flip"])
def test_a_pass_that_was_cut_goes_on_to_the_same_bits(augment):
    spec = WHOLE.model_copy(update={"augment": augment})
    run = a_pass(spec=spec)
    snapshots = [stored(next(run).snapshot()) for _ in range(3)]
    whole, _ = finish(run)

    for done, state in enumerate(snapshots, 1):
        resumed, rest = finish(a_pass(spec=spec, state=state))

        assert [report.done for report in rest] == list(range(done + 1, 4))
        for (name, ours), (_, theirs) in zip(parts_of(resumed), parts_of(whole), strict=True):
            assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("augment", ["flip", "flip_shift", "crop_flip"])
def test_augmentation_depends_on_the_seed(augment):
    one, again, other, plain = (
        finish(a_pass(spec=CollectSpec(augment=how, seed=seed)))[0].layers["net.blocks.0"]
        for how, seed in ((augment, 0), (augment, 0), (augment, 1), ("none", 0))
    )

    assert torch.equal(one.classes.patch_mean, again.classes.patch_mean)
    assert not torch.equal(one.classes.patch_mean, other.classes.patch_mean)
    assert not torch.equal(one.classes.patch_mean, plain.classes.patch_mean)


def test_a_flip_moves_nothing_but_left_to_right():
    flipped, plain = (
        finish(a_pass(spec=CollectSpec(augment=how)))[0].layers["net.blocks.0"].overall.patch_mean
        for how in ("flip", "none")
    )

    torch.testing.assert_close(flipped.view(2, 2).sum(1), plain.view(2, 2).sum(1))


def test_statistics_say_what_they_are_of():
    found, _ = finish(a_pass(spec=WHOLE.model_copy(update={"files": ("x",)})))

    assert found.observer == "a" * 64
    assert (found.taps, found.spec) == (TapSpec(), WHOLE)
    assert found.class_names == ("class 0", "class 1", "class 2")
    assert found.images == 12


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_a_pass_leaves_the_observer_as_it_was_even_when_it_is_cut():
    data = images_for("convnet2-w4-bn")
    net = observer("convnet2-w4-bn", data).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}

    run = collect(net, "a", data, TapSpec(), WHOLE, device=torch.device("cpu"))
    next(run)

    assert hooks(net) == 0
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("taps", "kinds", "patches"),
    [
        (TapSpec(conv=False), ["bn", "bn"], False),
        (TapSpec(bn=False), ["conv", "conv"], True),
        (TapSpec(patch=False), ["conv", "bn", "conv", "bn"], False),
    ],
)
def test_only_the_taps_that_are_asked_for_are_measured(taps, kinds, patches):
    found, _ = finish(a_pass(taps=taps))

    assert [layer.kind for layer in found.layers.values()] == kinds
    first = next(iter(found.layers.values()))
    assert (first.overall.patch_mean is not None) == patches


def test_an_observer_without_such_layers_is_refused():
    with pytest.raises(ValueError, match="convnet2-w4 has no layer to measure"):
        next(a_pass("convnet2-w4", taps=TapSpec(conv=False)))


def test_a_batch_norm_without_running_statistics_is_refused():
    data = images_for("convnet2-w4-bn")
    net = observer("convnet2-w4-bn", data)
    net.get_submodule("net.blocks.1").running_mean = None
    net.get_submodule("net.blocks.1").running_var = None

    with pytest.raises(ValueError, match=r"blocks\.1 keeps no running statistics"):
        next(collect(net, "a", data, TapSpec(), WHOLE, device=torch.device("cpu")))


# ---- the file


def test_overall_targets_come_back_from_the_file_as_they_were(tmp_path):
    found, _ = finish(a_pass())
    found.save(tmp_path / "one.safetensors")

    loaded = ObserverStatistics.load(tmp_path / "one.safetensors")

    assert list(loaded.layers) == list(found.layers)
    for path, layer in found.layers.items():
        assert loaded.layers[path].kind == layer.kind
        for ours, theirs in zip(loaded.layers[path].overall, layer.overall, strict=True):
            assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_what_the_file_says_comes_back(tmp_path):
    found, _ = finish(a_pass())
    found.save(tmp_path / "one.safetensors")

    loaded = ObserverStatistics.load(tmp_path / "one.safetensors")

    for name in ("observer", "taps", "spec", "class_names", "images"):
        assert getattr(loaded, name) == getattr(found, name)


def test_half_precision_class_tables_change_a_matching_loss_by_less_than_a_thousandth(tmp_path):
    data = images_for("mobilenetv2-0.5")
    net = observer("mobilenetv2-0.5", data)
    found, _ = finish(a_pass("mobilenetv2-0.5"))
    found.save(tmp_path / "one.safetensors")
    loaded = ObserverStatistics.load(tmp_path / "one.safetensors")
    images = data.images(range(6)).flip(0)

    def matched(statistics):
        x = images.clone().requires_grad_()
        with measured(net, TapSpec()) as moments:
            net(x)
        loss = torch.zeros(())
        for path, layer in statistics.layers.items():
            for table in (layer.classes, layer.totals):
                pairs = zip(moments[path], table, strict=True)
                loss = loss + sum((a - b[1]).norm() for a, b in pairs if b is not None)
        return loss.detach(), torch.autograd.grad(loss, x)[0]

    (loss, gradient), (rounded, other) = matched(found), matched(loaded)

    assert abs(rounded / loss - 1) < 1e-3
    assert torch.cosine_similarity(gradient.flatten(), other.flatten(), 0) > 1 - 1e-5


def test_tables_beyond_half_precision_keep_three_digits(tmp_path):
    found, _ = finish(a_pass())
    path, layer = next(iter(found.layers.items()))
    for factor in (1e9, 1e-9):
        scaled = type(layer)(
            layer.kind, *(FeatureMoments(*(p * factor for p in part)) for part in layer[1:])
        )
        replace(found, layers={path: scaled}).save(tmp_path / "one.safetensors")
        loaded = ObserverStatistics.load(tmp_path / "one.safetensors").layers[path]
        for ours, theirs in zip(loaded.totals, scaled.totals, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=0)


def test_classes_that_do_not_differ_can_be_kept(tmp_path):
    found, _ = finish(a_pass())
    path, layer = next(iter(found.layers.items()))
    same = FeatureMoments(*(part.expand(3, -1) for part in layer.overall))
    equal = replace(found, layers={path: layer._replace(classes=same, totals=same)})
    equal.save(tmp_path / "one.safetensors")

    loaded = ObserverStatistics.load(tmp_path / "one.safetensors").layers[path]

    for table in (loaded.classes, loaded.totals):
        assert all(torch.equal(part, whole) for part, whole in zip(table, same, strict=True))


def test_equal_statistics_are_equal_files(tmp_path):
    for name in "ab":
        finish(a_pass())[0].save(tmp_path / name)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def a_foreign_file(folder):
    save_file({"weight": torch.zeros(3)}, folder / "one.safetensors")


def a_text(folder):
    (folder / "one.safetensors").write_text("statistics")


def a_file_without_a_layer(folder):
    found, _ = finish(a_pass())
    found.save(folder / "whole.safetensors")
    tensors, header = read_tensors(folder / "whole.safetensors")
    del tensors["net.blocks.1.bn.class_mean.spread"]
    write_tensors(folder / "one.safetensors", tensors, header)


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (lambda folder: None, "no such"),
        (a_text, "not a whole safetensors file"),
        (a_foreign_file, "not one with statistics"),
        (a_file_without_a_layer, "are not whole"),
    ],
)
def test_another_file_is_refused(write, what, tmp_path):
    write(tmp_path)

    with pytest.raises(ValueError, match=what):
        ObserverStatistics.load(tmp_path / "one.safetensors")


def test_statistics_move_to_another_device():
    found, _ = finish(a_pass())

    moved = found.to(torch.device("meta"))

    assert {value.device.type for _, value in parts_of(moved)} == {"meta"}
    assert moved.observer == found.observer


# ---- measuring a pass


@pytest.mark.parametrize("arch", ["convnet2-w4", "resnet18", *ARCHS[2:]])
def test_measured_moments_are_those_of_the_inputs_with_their_gradients(arch):
    data = images_for(arch)
    net, images = observer(arch, data), data.images(range(3))
    gradients = []

    x = images.clone().requires_grad_()
    with measured(net, TapSpec()) as found:
        net(x)
    gradients += torch.autograd.grad(sum(m.var.sum() + m.mean.sum() for m in found.values()), x)
    x = images.clone().requires_grad_()
    with tap(net, (nn.Conv2d, nn.BatchNorm2d)) as seen:
        net(x)
    slow = [(v.var((0, 2, 3), correction=0).sum() + v.mean((0, 2, 3)).sum()) for v in seen.values()]
    gradients += torch.autograd.grad(sum(slow), x)

    assert list(found) == list(seen)
    for path, moments in found.items():
        has_patches = layers_of(net, TapSpec())[path] == "conv"
        assert (moments.patch_mean is not None) == has_patches
        for k, part in enumerate(moments):
            if part is not None:
                assert_near(part, slow_moments(seen[path], 4)[k])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5 * float(gradients[0].abs().max()))
    assert hooks(net) == 0


def test_layers_that_see_the_same_tensor_share_the_work(monkeypatch):
    data = images_for("resnet18")
    net = observer("resnet18", data)
    calls = []
    real = measuring.feature_moments
    monkeypatch.setattr(
        measuring, "feature_moments", lambda maps, side: calls.append(side) or real(maps, side)
    )

    with torch.no_grad(), measured(net, TapSpec()) as found:
        net(data.images(range(2)))
        net(data.images(range(2, 4)))

    assert len(found) == 40  # twenty convolutions, three of them beside a shortcut's
    assert len(calls) == 2 * 37


def test_a_second_pass_replaces_the_moments():
    data = images_for("resnet18")
    net = observer("resnet18", data)

    with torch.no_grad(), measured(net, TapSpec()) as found:
        images = data.images(range(4))
        net(images[:2])
        images[:2] = images[2:]  # the same memory
        net(images[:2])

    with torch.no_grad(), measured(net, TapSpec()) as alone:
        net(data.images(range(2, 4)))
    assert all(torch.equal(found[path].mean, alone[path].mean) for path in found)


def test_skipped_layers_are_not_measured():
    data = images_for("convnet2-w4-bn")
    net = observer("convnet2-w4-bn", data)

    with measured(net, TapSpec(), skip=["net.blocks.4"]) as found:
        net(data.images([0]))

    assert list(found) == ["net.blocks.0", "net.blocks.1", "net.blocks.5"]


def test_every_layer_may_be_skipped():
    net = observer("convnet2-w4", images_for("convnet2-w4"))

    with measured(net, TapSpec(), skip=list(layers_of(net, TapSpec()))) as found:
        net(images_for("convnet2-w4").images([0]))

    assert found == {}


def test_measuring_a_network_without_such_layers_is_refused():
    net = observer("convnet2-w4", images_for("convnet2-w4"))

    with (
        pytest.raises(ValueError, match="Classifier has no layer to measure"),
        measured(net, TapSpec(conv=False)),
    ):
        pass


def test_no_hook_is_left_after_an_error_while_measuring():
    net = observer("convnet2-w4", images_for("convnet2-w4"))

    with pytest.raises(RuntimeError), measured(net, TapSpec()):
        net.normalized(torch.zeros(1, 2, 8, 8))

    assert hooks(net) == 0
