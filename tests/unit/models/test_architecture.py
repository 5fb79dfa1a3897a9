import pytest

from distillhub.models.architecture import architectures, parse_arch


@pytest.mark.parametrize("name", architectures())
def test_every_offered_name_is_understood(name: str):
    assert parse_arch(name.replace("<name>", "resnet18")).name


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("covnet3", "convnet3"), ("resnet19", "resnet18"), ("mobilenet", "mobilenetv2")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, nearest: str):
    with pytest.raises(ValueError, match=f"no architecture '{name}'; did you mean '{nearest}"):
        parse_arch(name)


def test_an_unknown_option_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no option 'maxpol'; did you mean 'maxpool'"):
        parse_arch("convnet3-maxpol")


def test_a_choice_made_twice_is_refused():
    with pytest.raises(ValueError, match="'convnet3-in-bn' chooses the norm twice"):
        parse_arch("convnet3-in-bn")


def test_groups_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="4 groups do not divide 6 channels"):
        parse_arch("convnet3-w6-gn")


def test_library_names_are_taken_as_they_are():
    assert parse_arch("timm:resnet50.a1_in1k").library == "timm"


def test_a_library_without_a_name_is_unknown():
    with pytest.raises(ValueError, match="no architecture 'timm:'"):
        parse_arch("timm:")
