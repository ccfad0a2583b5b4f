"""What is most like a misspelt word: by its letters, or by the words that it is made of."""

from __future__ import annotations

import pytest

from ai4sdk.config.keys import nearest

KEYS = ["max_epochs", "scale_learning_rate", "trainer", "gradient_clip_val", "early_stopping", "mode"]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("max_epoch", "max_epochs"),
        ("Max_Epochs", "max_epochs"),
        ("epochs_max", "max_epochs"),
        ("lr_scaling", "scale_learning_rate"),  # by letters alone the nearest is trainer
        ("lr_scale", "scale_learning_rate"),
        ("scale_lr", "scale_learning_rate"),
        ("stop_early", "early_stopping"),
        ("clip_gradients", "gradient_clip_val"),
        ("trainr", "trainer"),
        ("mode", "mode"),
        ("mean_average", None),  # m and a begin nothing here
        ("zzz", None),
        ("_", None),
        ("", None),
    ],
)
def test_a_word_is_found_by_letters_or_by_words(word: str, found: str | None) -> None:
    assert nearest(word, KEYS) == found


def test_letters_that_are_initials_stand_for_words_that_follow_each_other() -> None:
    assert nearest("lr_scaling", ["left_margin_right"]) is None
    assert nearest("lr", ["learning_rate", "lrs"]) == "learning_rate"


def test_a_word_is_found_in_no_words() -> None:
    assert nearest("max_epochs", []) is None
