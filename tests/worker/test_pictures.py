"""Every picture that scores allow is drawn, readable with 2 or 100 classes, the same bytes for the same figures."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from ai4sdk.worker import pictures
from ai4sdk.worker.evaluate import Evaluation
from ai4sdk.worker.pictures import learning_curves, metric_panels
from ai4sdk.worker.scores import classification_scores, regression_scores

RANDOM = np.random.default_rng(0)


def classified(classes, count=60, names=None, **options):
    labels = RANDOM.integers(0, classes, count)
    logits = RANDOM.normal(size=(count, classes))
    logits[np.arange(count), labels] += 2
    names = names or [f"class {number}" for number in range(classes)]
    scores = classification_scores(labels, logits, class_names=names, **options)
    return Evaluation("classification", scores, labels, logits, names)


def draw_evaluation(found):
    return pictures.draw_evaluation(found.scores, found.outputs, found.targets)


def size(png):
    image = Image.open(io.BytesIO(png))
    image.verify()
    return image.size


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_pictures_of_a_classifier(classes):
    pictures = draw_evaluation(classified(classes))
    assert list(pictures) == ["confusion_matrix", "classes", "roc_and_precision_recall", "calibration"]
    for png in pictures.values():
        width, height = size(png)
        assert 400 <= width <= 2400
        assert 200 <= height <= 2400


@pytest.mark.parametrize("outputs", [1, 2, 5, 40])
def test_pictures_of_a_regressor(outputs):
    targets = RANDOM.normal(size=(50, outputs))
    guesses = targets + 0.1
    guesses[3] = np.nan
    found = Evaluation("regression", regression_scores(targets, guesses), targets, guesses)
    assert list(draw_evaluation(found)) == ["predicted_and_true", "residuals"]


@pytest.mark.parametrize("names", [["$x$", "$"], ["", " "], ["猫", "犬"], ["a" * 200, "b\nc"], ["_", "^{"]])
def test_any_name_can_be_drawn(names):
    assert len(draw_evaluation(classified(2, names=names))) == 4


def test_equal_figures_give_equal_bytes():
    found = classified(3)
    assert draw_evaluation(found) == draw_evaluation(found)


def test_what_allows_no_curve_is_drawn_without():
    logits = np.array([[3.0, 1.0]])
    one = Evaluation("classification", classification_scores([0], logits, kind="logits"), np.array([0]), logits)
    assert len(draw_evaluation(one)) == 4
    numbers = np.array([0, 1, 1])
    labels = Evaluation("classification", classification_scores([0, 1, 0], numbers), np.array([0, 1, 0]), numbers)
    assert list(draw_evaluation(labels)) == ["confusion_matrix", "classes"]
    constant = np.ones((4, 1))
    flat = Evaluation("regression", regression_scores(constant, constant), constant, constant)
    assert len(draw_evaluation(flat)) == 2


@pytest.mark.parametrize("offset", [0.0, 0.1, 1e-12, 1e15, 1e200])
def test_errors_of_any_size_can_be_drawn(offset):
    targets = np.array([[0.0], [1.0], [-2.0]])
    found = Evaluation("regression", regression_scores(targets, targets + offset), targets, targets + offset)
    assert len(draw_evaluation(found)) == 2


def test_nothing_to_draw_gives_no_picture():
    assert draw_evaluation(Evaluation("other", outputs=np.zeros(3))) == {}
    broken = np.full((3, 2), np.nan)
    scores = classification_scores([0, 1, 1], broken, kind="logits")
    assert draw_evaluation(Evaluation("classification", scores, np.array([0, 1, 1]), broken)) == {}


def test_labels_left_out_of_the_scores_are_left_out_of_the_pictures():
    labels = np.array([0, 1, -100, 7])
    logits = RANDOM.normal(size=(4, 2)) * 4
    found = Evaluation("classification", classification_scores(labels, logits), labels, logits)
    assert len(draw_evaluation(found)) == 4


def test_drawing_touches_nothing_global():
    draw_evaluation(classified(2))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def line(step, **metrics):
    return {"time": 0.0, "step": step, "epoch": 0, "metrics": metrics}


def test_training_and_validation_of_one_name_share_a_panel():
    panels = metric_panels(
        [
            line(1, train_loss=1.0, **{"val/acc": 0.5, "acc_train": 0.4}),
            line(2, **{"train_loss_step": 0.9, "train_loss_epoch": 0.8, "val_loss": 0.7, "lr-Adam": 0.1}),
            line(2, val_loss=0.6),
        ]
    )
    assert panels == {
        "loss": {"train": ([1, 2], [1.0, 0.8]), "train (steps)": ([2], [0.9]), "val": ([2], [0.6])},
        "acc": {"val": ([1], [0.5]), "train": ([1], [0.4])},
        "lr-Adam": {"": ([2], [0.1])},
    }


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"step": 1},
        {"step": "x", "metrics": {"a": 1}},
        line(1, a=float("nan"), b=None, c="x", d=True),
        {"metrics": 3},
    ],
)
def test_records_without_numbers_draw_nothing(record):
    assert metric_panels([record]) == {}
    assert learning_curves([record]) is None


def test_learning_curves_of_many_metrics():
    records = [line(step, **{f"metric{number}": 10.0 ** (step - number) for number in range(40)}) for step in range(9)]
    width, height = size(learning_curves(records))
    assert width > 1000
    assert height > 1000


def test_a_picture_that_cannot_be_drawn_is_left_out_and_logged(monkeypatch, caplog):
    def broken(*args):
        raise OverflowError("too large")

    monkeypatch.setattr("ai4sdk.worker.pictures.class_bars", broken)
    assert list(draw_evaluation(classified(2))) == ["confusion_matrix", "roc_and_precision_recall", "calibration"]
    assert "the picture classes could not be drawn" in caplog.text
