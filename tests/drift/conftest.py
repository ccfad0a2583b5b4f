"""References, predictions and small runs for the tests of drift."""

import numpy as np
import pytest

from ai4sdk.drift.features import Form
from ai4sdk.drift.reference import make_reference
from ai4sdk.worker.prediction import Prediction


def answers(confidence, labels=None):
    """A classifier's prediction with these confidences."""
    confidence = np.asarray(confidence, np.float64)
    chances = np.stack([confidence, 1 - confidence], axis=1)
    names = np.asarray(["a"] * len(confidence) if labels is None else labels, np.str_)
    return Prediction("classification", chances, names, chances, ("a", "b"))


@pytest.fixture
def reference():
    """A reference of three columns and of a classifier's answers."""
    generator = np.random.default_rng(7)
    form = Form("table", (("age", "number"), ("smokes", "bool"), ("colour", "text")))
    inputs = {
        "age": generator.normal(50, 10, 3000),
        "smokes": generator.integers(0, 2, 3000).astype(float),
        "colour": list(generator.choice(["red", "blue"], 3000)),
    }
    outputs = {"class": list(generator.choice(["a", "b"], 1000)), "confidence": generator.uniform(0.5, 1, 1000)}
    return make_reference(form, inputs, outputs, ("Of 3,000 samples.",))


@pytest.fixture
def batch():
    """Make samples and predictions like those of the reference, or moved away from them."""

    def make(count, seed=0, moved=0.0):
        generator = np.random.default_rng(seed)
        ages = generator.normal(50 + moved, 10, count)
        smoke, colours = generator.integers(0, 2, count), generator.choice(["red", "blue"], count)
        samples = [
            {"age": float(age), "smokes": bool(one), "colour": str(colour)}
            for age, one, colour in zip(ages, smoke, colours, strict=True)
        ]
        sure = generator.uniform(0.5, 1, count)
        return samples, answers(sure, generator.choice(["a", "b"], count))

    return make
