"""Parameters of plugins: what targets say of them is checked, and every way to take them works."""

from typing import TYPE_CHECKING, Annotated

import pytest
from pydantic import BeforeValidator, Field

from mmc_bench import BaseConfig
from mmc_bench.errors import UserError, nearest
from mmc_bench.plugin.parameters import check_parameters, construct

if TYPE_CHECKING:
    from pathlib import Path


def made(target, parameters):
    return construct(target, check_parameters("method mine", target, parameters))


def network(num_classes, input_shape, blocks: Annotated[int, Field(ge=1)], name: str = "plain", extra=None):
    """Stand for a backbone's target."""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"blocks": "abc"}, "backbone net: blocks = 'abc': Input should be a valid integer"),
        ({"blocks": 0}, "backbone net: blocks = 0: Input should be greater than or equal to 1"),
        ({"blocks": 1, "name": [1]}, r"backbone net: name = \[1\]: Input should be a valid string"),
    ],
)
def test_a_signature_s_annotations_are_checked(given, expected):
    with pytest.raises(UserError, match=expected):
        check_parameters("backbone net", network, given)


def test_what_a_signature_does_not_annotate_may_be_anything():
    assert dict(check_parameters("backbone net", network, {"blocks": 2, "extra": [1]})) == {
        "blocks": 2,
        "name": "plain",
        "extra": [1],
    }


def test_annotations_for_type_checkers_alone_are_no_hindrance():
    def build(num_classes, folder: "Path", **options):
        """Name a type that is not there when the program runs."""

    assert dict(check_parameters("backbone net", build, {"folder": "here"})) == {"folder": "here"}
    with pytest.raises(UserError, match="no parameter 'depth': known: folder"):
        check_parameters("backbone net", build, {"depth": 3})


class Config(BaseConfig):
    lr: float = 0.5


class GivenItsConfig:
    Config = Config

    def __init__(self, settings):
        self.lr = settings.lr


class WithoutInit:
    Config = Config

    @property
    def lr(self):
        return self.config.lr


class NamingItsParameters:
    def __init__(self, lr: float = 0.5):
        self.lr = lr


@pytest.mark.parametrize("target", [GivenItsConfig, WithoutInit, NamingItsParameters])
def test_a_class_gets_its_parameters_however_it_takes_them(target):
    assert made(target, {}).lr == 0.5
    assert made(target, {"lr": 0.1}).lr == 0.1
    with pytest.raises(UserError, match="method mine: lr = 'fast': Input should be a valid number"):
        made(target, {"lr": "fast"})
    with pytest.raises(UserError, match="method mine has no parameter 'lrr': did you mean lr"):
        made(target, {"lrr": 1})


class Typed(BaseConfig):
    epochs: int = 3
    lr: float | None = 0.1
    lrs: tuple[float, ...] = ()
    inner: dict[str, int] = Field({})
    flag: bool = False
    either: bool | int = 0
    radius: Annotated[float, BeforeValidator(lambda value: 8 / 255 if value == "8/255" else value)] = 0.1


class WithTypes:
    Config = Typed


def untyped(epochs=3, flag=False, extra=None):
    """Stand for a target whose parameters have no types."""


@pytest.mark.parametrize("target", [WithTypes, untyped])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"epochs": True}, "epochs = True: a number is wanted, not a boolean"),
        ({"epochs": "5"}, "epochs = '5': a number is wanted, not text"),
        ({"epochs": float("inf")}, "epochs = inf: (a|Input should be a) finite number"),
        ({"flag": 1}, "flag = 1: a boolean is wanted, not a number"),
        ({"flag": "yes"}, "flag = 'yes': a boolean is wanted, not text"),
    ],
)
def test_a_value_of_another_kind_is_refused_even_where_pydantic_would_convert_it(target, given, expected):
    with pytest.raises(UserError, match=f"method mine: {expected}"):
        check_parameters("method mine", target, given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"lr": False}, "lr = False: a number is wanted, not a boolean"),
        ({"lr": float("nan")}, "lr = nan: a finite number is wanted"),
        ({"lrs": [0.1, True]}, "lrs.1 = True: a number is wanted, not a boolean"),
        ({"inner": {"a": {"b": 1}}}, "inner.a = .*: Input should be a valid integer"),
        ({"inner": {"a": True}}, "inner.a = True: a number is wanted, not a boolean"),
    ],
)
def test_so_is_one_within_a_list_or_mapping(given, expected):
    with pytest.raises(UserError, match=f"method mine: {expected}"):
        check_parameters("method mine", WithTypes, given)


def test_values_of_their_own_kind_pass():
    given = {"lr": 1, "epochs": 2.0, "flag": True, "either": True, "radius": "8/255"}
    config = check_parameters("method mine", WithTypes, given)
    assert (config.epochs, config.either, config.radius) == (2, True, 8 / 255)
    assert dict(check_parameters("method mine", untyped, {"extra": True})) == {
        "epochs": 3,
        "flag": False,
        "extra": True,
    }


def test_a_class_with_an_init_and_no_parameters_is_given_an_empty_config():
    class Bare:
        def __init__(self, config):
            self.held = config

    assert dict(made(Bare, {}).held) == {}


def test_long_lists_of_known_names_are_cut():
    assert nearest("zzz", [f"a{n}" for n in range(10)]).endswith("a8, a9")
    assert nearest("zzz", [f"a{n:02}" for n in range(1200)]).endswith("a08, a09, … (1190 more)")


def test_a_config_that_is_no_pydantic_model_is_refused_in_one_sentence():
    class Odd:
        class Config:
            lr = 0.1

    with pytest.raises(UserError, match=r"Odd\.Config is no pydantic model: derive it from mmc_bench\.BaseConfig"):
        check_parameters("method odd", Odd, {})


def test_a_name_in_other_case_is_answered_with_the_name():
    assert nearest("RESNET18", ["vgg13", "resnet18"]) == "did you mean resnet18?"
    assert nearest("ours", ["Ours", "theirs"]) == "did you mean Ours?"
