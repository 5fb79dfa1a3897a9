import pytest
import torch
from torch import nn

from distillhub.models.zoo import Classifier, build

# Name, channels, side, classes, parameters, width of the embedding: the published table of the
# classic protocol, and of the 224-pixel networks of dataset distillation.
COUNTS = [
    ("convnet3", 1, 28, 10, 317_706, 2048),
    ("convnet3", 3, 32, 10, 320_010, 2048),
    ("convnet3", 3, 32, 100, 504_420, 2048),
    ("convnet1", 3, 32, 10, 331_530, 32_768),
    ("convnet2", 3, 32, 10, 233_610, 8192),
    ("convnet4", 3, 32, 10, 452_490, 512),
    ("convnet3", 3, 64, 200, 1_938_120, 8192),
    ("convnet4", 3, 64, 200, 857_160, 2048),
    ("convnet3-w32", 3, 32, 10, 24_714, 512),
    ("convnet3-w64", 3, 32, 10, 86_282, 1024),
    ("convnet3-w256", 3, 32, 10, 1_229_834, 4096),
    ("mlp", 3, 32, 10, 411_146, 128),
    ("mlp", 1, 28, 10, 118_282, 128),
    ("lenet", 3, 32, 10, 62_006, 84),
    ("lenet", 1, 28, 10, 61_706, 84),
    ("alexnet", 3, 32, 10, 1_872_202, 3072),
    ("alexnet", 1, 28, 10, 1_865_802, 3072),
    ("alexnet-bn", 3, 32, 10, 1_874_122, 3072),
    ("alexnet-bn", 1, 28, 10, 1_867_722, 3072),
    ("vgg11", 3, 32, 10, 9_231_114, 512),
    ("vgg11", 1, 28, 10, 9_229_962, 512),
    ("vgg11-bn", 3, 32, 10, 9_231_114, 512),
    ("resnet18-in", 3, 32, 10, 11_173_962, 512),
    ("resnet18-in", 1, 28, 10, 11_172_810, 512),
    ("resnet18", 3, 32, 10, 11_173_962, 512),
    ("resnet18-in-ap", 3, 32, 10, 11_250_762, 8192),
    ("resnet18-bn-ap", 1, 28, 10, 11_213_770, 4608),
    ("convnet6", 3, 224, 10, 754_570, 1152),
    ("resnetap10", 3, 224, 10, 4_910_922, 512),
    ("resnet18-in", 3, 224, 10, 11_181_642, 512),
    ("wrn16-2", 3, 32, 100, 703_284, 128),
    ("mobilenetv2", 3, 32, 100, 812_836, 1280),
    ("shufflenetv2-1.0", 3, 32, 100, 1_355_528, 1024),
    # torchvision's x0_5 has 1 366 792: its stem is 3x3 (648 for 72), its head has 1000 outputs.
    ("shufflenetv2-0.5", 3, 32, 10, 1_366_792 - 576 - 990 * 1025, 1024),
]
CIFAR_OBSERVERS = {
    "resnet18": True,
    "convnet3": False,
    "mobilenetv2-0.5": True,
    "wrn16-2": True,
    "shufflenetv2-0.5": True,
    "convnet1": False,
    "convnet2": False,
    "convnet3-w32": False,
}
"""The eight networks that guide EDC at 32 pixels, and whether they have batch norm."""

# Every own family at a small size, all its choices.
SMALL = [
    ("convnet2-w8-bn", 8),
    ("convnet2-w8-gn-swish", 8),
    ("convnet2-w8-ln-sigmoid-maxpool", 8),
    ("convnet2-w8-none-leakyrelu-nopool", 8),
    ("resnet18-ap", 16),
    ("resnet50-in", 16),
    ("resnet18", 72),
    ("resnetap10-bn", 32),
    ("alexnet", 16),
    ("vgg11-bn", 32),
    ("mlp", 8),
    ("lenet", 16),
    ("wrn16-2", 16),
    ("mobilenetv2", 32),
    ("shufflenetv2-0.5", 64),
]


def make(
    arch: str, *, channels: int = 3, side: int = 8, classes: int = 4, seed: int = 0
) -> Classifier:
    return build(
        arch,
        num_classes=classes,
        channels=channels,
        height=side,
        width=side,
        mean=(0.4,) * channels,
        std=(0.2,) * channels,
        seed=seed,
    )


def random_images(count: int, channels: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, side, side, generator=generator)


@pytest.mark.parametrize(("arch", "channels", "side", "classes", "parameters", "width"), COUNTS)
def test_classic_check_01_parameters_and_embedding_are_those_of_the_literature(
    arch: str, channels: int, side: int, classes: int, parameters: int, width: int
):
    classifier = make(arch, channels=channels, side=side, classes=classes)

    assert sum(p.numel() for p in classifier.parameters()) == parameters
    assert classifier.embed_dim == width


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_large_residual_networks_have_the_shapes_of_torchvision(arch: str):
    from torchvision.models import get_model

    ours = make(arch, side=224, classes=1000).net.state_dict()
    theirs = get_model(arch).state_dict()

    assert sorted(v.shape for v in ours.values()) == sorted(v.shape for v in theirs.values())


@pytest.mark.parametrize(("arch", "side"), SMALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_are_the_head_of_the_features(arch: str, side: int, channels: int):
    classifier = make(arch, channels=channels, side=side).eval()
    images = random_images(2, channels, side)

    with torch.no_grad():
        features, logits = classifier.features(images), classifier(images)

    assert features.shape == (2, classifier.embed_dim)
    torch.testing.assert_close(classifier.net.head(features), logits)


def test_the_embedding_of_a_convnet_is_never_negative():
    features = make("convnet2-w8").features(random_images(4, 3, 8))

    assert features.min() >= 0


def test_instance_norm_makes_train_and_eval_agree():
    classifier, images = make("convnet2-w8"), random_images(4, 3, 8)

    trained = classifier.train()(images)

    assert torch.equal(trained, classifier.eval()(images))


def test_normalisation_happens_inside():
    classifier, images = make("convnet2-w8"), random_images(4, 3, 8)

    by_hand = classifier.normalized((images - 0.4) / 0.2)

    torch.testing.assert_close(classifier(images), by_hand)


def test_denormalize_undoes_normalize():
    classifier, images = make("mlp"), random_images(4, 3, 8)

    torch.testing.assert_close(classifier.denormalize(classifier.normalize(images)), images)


def test_the_same_seed_gives_the_same_weights():
    first, second = make("convnet2-w8", seed=5), make("convnet2-w8", seed=5)

    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_another_seed_gives_other_weights():
    first, second = make("convnet2-w8", seed=5), make("convnet2-w8", seed=6)

    assert not torch.equal(first.net.head.weight, second.net.head.weight)


@pytest.mark.parametrize("arch", ["convnet2-w8", "torchvision:squeezenet1_0", "resnetap10"])
def test_building_leaves_the_global_generator_alone(arch: str):
    before = torch.get_rng_state()

    try:
        make(arch, side=32)
    except ValueError:
        assert "squeezenet" in arch  # refused after its weights were drawn

    assert torch.equal(torch.get_rng_state(), before)


def test_a_frozen_classifier_needs_no_gradient():
    classifier = make("convnet2-w8-bn").freeze()

    assert not classifier.training
    assert not any(p.requires_grad for p in classifier.parameters())


@pytest.mark.parametrize(
    ("arch", "side", "words"),
    [
        ("convnet6", 8, "depth 6 halves the image 6 times, which 8 x 8"),
        ("vgg11", 16, "VGG11 does not fit 16 x 16"),
        ("lenet", 8, "LeNet does not fit 8 x 8"),
        ("resnetap10", 28, "which 28 x 28 pixels do not allow"),
        ("resnet18-ap", 7, "three 2x2 pools do not fit 7 x 7"),
    ],
)
def test_a_network_too_deep_for_the_image_names_both(arch: str, side: int, words: str):
    with pytest.raises(ValueError, match=words):
        make(arch, side=side)


def test_wrong_numbers_of_means_are_refused():
    with pytest.raises(ValueError, match="1 means and 1 deviations for 3 channels"):
        build("mlp", num_classes=2, channels=3, height=8, width=8, mean=(0,), std=(1,), seed=0)


def test_names_must_fit_the_outputs():
    with pytest.raises(ValueError, match="1 class names for 4 outputs"):
        Classifier(
            make("mlp").net, arch="mlp", input_shape=(3, 8, 8),
            mean=(0, 0, 0), std=(1, 1, 1), class_names=("one",),
        )  # fmt: skip


def test_a_timm_network_gives_its_embedding_and_logits():
    classifier = make("timm:resnet10t", channels=1, side=32).eval()
    images = random_images(2, 1, 32)

    features = classifier.features(images)

    assert features.shape == (2, 512)
    torch.testing.assert_close(classifier.net.head(features), classifier(images))


def test_a_timm_transformer_takes_the_size_of_the_images():
    assert make("timm:vit_tiny_patch16_224", side=64)(random_images(1, 3, 64)).shape == (1, 4)


def test_a_torchvision_network_equals_itself_with_its_head_apart():
    from torchvision.models import get_model

    classifier = make("torchvision:shufflenet_v2_x0_5", side=64).eval()
    images = random_images(2, 3, 64)
    whole: nn.Module = get_model("shufflenet_v2_x0_5", num_classes=4).eval()
    state = classifier.net.state_dict()
    whole.load_state_dict(
        {name.removeprefix("body.").replace("head.", "fc."): state[name] for name in state}
    )

    torch.testing.assert_close(classifier.normalized(images), whole(images))


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("timm:resnet10x", "timm has no network 'resnet10x'; did you mean"),
        ("torchvision:resnet19", "torchvision has no network 'resnet19'; did you mean"),
        ("torchvision:squeezenet1_0", "does not end in one linear layer"),
    ],
)
def test_library_networks_that_cannot_be_used_say_why(arch: str, words: str):
    with pytest.raises(ValueError, match=words):
        make(arch, side=64)


def test_torchvision_refuses_grey_images():
    with pytest.raises(ValueError, match="take 3 channels, not 1"):
        make("torchvision:resnet18", channels=1, side=64)


def test_kept_outputs_come_in_the_order_asked_for():
    classifier, images = make("convnet2-w8"), random_images(2, 3, 8)
    logits = classifier(images)

    classifier.net.keep_outputs((3, 1))

    torch.testing.assert_close(classifier(images), logits[:, [3, 1]])


def test_outputs_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"outputs \(4,\) of 4"):
        make("mlp").net.keep_outputs((4,))


@pytest.mark.parametrize(("arch", "batch_norm"), CIFAR_OBSERVERS.items())
def test_the_eight_observers_of_small_images_have_the_layers_that_are_matched(arch, batch_norm):
    layers = list(make(arch, side=32, classes=10).net.modules())

    assert any(isinstance(layer, nn.BatchNorm2d) for layer in layers) is batch_norm
    assert any(isinstance(layer, nn.GroupNorm) for layer in layers) is not batch_norm
    first = next(layer for layer in layers if isinstance(layer, nn.Conv2d))
    stride = 2 if arch == "mobilenetv2-0.5" else 1
    assert (first.in_channels, first.stride) == (3, (stride, stride))
    assert not any(isinstance(layer, nn.MaxPool2d) for layer in layers)
