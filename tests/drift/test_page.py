"""The page shows what differs, also where values went missing, and holds whatever a feature is called."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ai4sdk.drift.page import page
from ai4sdk.drift.reference import make_reference
from ai4sdk.drift.verdict import judge, p_value

G = np.random.default_rng(0)
OLD = {
    "number": G.normal(size=500),
    "few": G.integers(0, 3, 500).astype(float),
    "holes": np.where(G.uniform(size=500) < 0.05, np.nan, G.normal(size=500)),
    "<b>&": list(G.choice(["<i>", "b"], 500)),
    "constant": np.ones(500),
    "huge": G.choice([-1.7e308, 0.0, 1.7e308], 500) * G.uniform(0.5, 1, 500),
}
MOVED = {
    "number": G.normal(1000, 1, 200),
    "few": np.full(200, 7.0),
    "holes": np.where(G.uniform(size=200) < 0.6, np.nan, G.normal(size=200)),
    "<b>&": ["new"] * 200,
    "constant": np.zeros(200),
    "huge": np.full(200, 1.7e308),
}


def drawn(inputs):
    known = make_reference(None, OLD, {}, ())
    verdict = judge(known, inputs, {}, alpha=0.05)
    text = page(verdict, known, inputs, {}, data=["<rows>.csv"])
    drawings = [ET.fromstring("<svg" + part.split("</svg>")[0] + "</svg>") for part in text.split("<svg")[1:]]
    for drawing in drawings:
        for one in drawing.iter():
            for name in ("x", "y", "width", "height"):
                if name in one.attrib:
                    assert np.isfinite(float(one.attrib[name]))
    return text, drawings


def test_what_differs_is_drawn_with_what_is_missing():
    text, drawings = drawn(MOVED)
    assert "input: holes missing, adjusted p" in text
    assert "<rows>" not in text
    assert "<b>&amp;" not in text.replace("<b>input", "")
    assert len(drawings) == 6


@pytest.mark.parametrize("inputs", [OLD, {"number": np.array([0.5])}, {"constant": np.ones(2)}])
def test_where_nothing_differs_the_nearest_are_drawn(inputs):
    text, drawings = drawn(inputs)
    assert "no drift" in text
    assert len(drawings) <= 4


def test_a_p_value_is_never_zero():
    assert p_value(0.0) == "under 1e-300"
    assert p_value(0.00123) == "0.0012"
