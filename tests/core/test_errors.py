from __future__ import annotations

import pytest

from ornstein.core import errors
from ornstein.core.errors import OrnsteinError, UnknownNameError, unknown_name

RECIPES = ["autoencoder", "text-to-image", "emoji-classifier", "rt1-tabletop"]


def test_every_error_is_one_that_the_command_line_catches() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) == 10
    assert all(issubclass(kind, OrnsteinError) for kind in kinds)
    assert not issubclass(OrnsteinError, (ValueError, KeyError, OSError))  # nobody catches it by accident


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("autoencodr", "autoencoder"),
        ("text-to-imge", "text-to-image"),
        ("Text_To_Image", "text-to-image"),
        ("RT1 tabletop", "rt1-tabletop"),
    ],
)
def test_the_nearest_name_is_offered(typed: str, meant: str) -> None:
    error = unknown_name("recipe", typed, RECIPES)
    assert isinstance(error, UnknownNameError)
    assert f"unknown recipe {typed!r}: did you mean {meant!r}" in str(error)


def test_few_choices_are_listed_and_many_are_not() -> None:
    assert str(unknown_name("recipe", "qqqq", RECIPES)) == (
        "unknown recipe 'qqqq' (choices: autoencoder, emoji-classifier, rt1-tabletop, text-to-image)"
    )
    many = [f"object-{k:03d}" for k in range(300)]
    text = str(unknown_name("object", "qqqq", many))
    assert "none of the 300 choices" in text
    assert len(text) < 200
    near = str(unknown_name("object", "object-01", many))
    assert "did you mean" in near
    assert len(near) < 200


def test_no_choice_at_all_is_said() -> None:
    assert str(unknown_name("checkpoint", "x", [])) == "unknown checkpoint 'x': there is none to choose from"


def test_the_message_is_one_line() -> None:
    assert "\n" not in str(unknown_name("recipe", "a\nb", RECIPES))
