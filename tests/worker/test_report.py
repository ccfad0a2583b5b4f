"""The report stands alone, says what a reader needs, and no text of a user's can do anything in it."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ai4sdk.runs.layout import RunPaths
from ai4sdk.worker.evaluate import Evaluation
from ai4sdk.worker.report import Report, phase_times, render_report, write_report
from ai4sdk.worker.scores import classification_scores, regression_scores

EVIL = "<script>alert('x')</script>\"' onload=alert(1) &amp;"

PLAN = {
    "digest": "sha256:feedbeef",
    "name": "fish",
    "python": "3.11",
    "job": {
        "name": "fish",
        "description": "Counts fish.",
        "seed": 42,
        "module": {"_target_": "fish.Net", "hidden": 3},
        "storage": {"password": "${secret:PASS}"},
        "evaluation": {"split": "val"},
    },
    "data": {
        "dataset": {
            "uri": "fish.csv",
            "fingerprint": "sha256:cafe",
            "bytes": 2048,
            "files": 2,
            "summary": {"rows": 99, "splits": {"train": 60, "val": 39}, "label": None},
        }
    },
    "packages": {"torch": "2.13.0"},
}


class Page(HTMLParser):
    """Tags, attributes and text of a page; unbalanced tags fail."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, content):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def classified(names=("cod", "eel", "ray")):
    labels = np.array([0, 1, 2, 0, 1, 2])
    logits = np.eye(3)[[0, 1, 2, 0, 1, 1]] * 4
    scores = classification_scores(labels, logits, class_names=names)
    return Evaluation("classification", scores, labels, logits, list(names), notes=["Beware of the eel."])


@pytest.fixture
def run(tmp_path):
    paths = RunPaths(tmp_path / "20260101-000000-fish-abcd")
    paths.root.mkdir()
    paths.plan.write_text(json.dumps(PLAN))
    lines = [{"step": step, "metrics": {"train_loss": 1 / (step + 1), "val_loss": 1.0}} for step in range(4)]
    paths.metrics.write_text("\n".join(map(json.dumps, lines)) + "\n{broken")
    events = [{"time": 10, "event": "phase", "phase": "fit"}, {"time": 70, "event": "phase", "phase": "evaluate"}]
    paths.events.write_text("\n".join(map(json.dumps, events)))
    return paths


def test_a_report_of_a_classifier(run):
    classified().save(run.evaluation)
    write_report(run)
    content = run.report.read_text()
    page = Page(content)
    for word in (
        "fish", "succeeded", "Counts fish.", "20260101-000000-fish-abcd", "0.8333", "validation split: 6 samples",
        "most frequent class would give an accuracy of 0.3333", "Beware of the eel.", "cod", "macro average",
        "Most frequent mistakes", "50.0%", "sha256:feedbeef", "fish.csv", "2 KiB in 2 file(s)", "train 60, val 39",
        "torch", "${secret:PASS}", "fit 1 min 0 s", "ai4sdk predict 20260101-000000-fish-abcd --input FILE",
    ):  # fmt: skip
        assert word in page.text, word
    assert page.tags.count("img") == 5
    drawn = sorted(path.name for path in run.evaluation.glob("*.png"))
    assert drawn == [
        "calibration.png", "classes.png", "confusion_matrix.png", "learning_curves.png", "roc_and_precision_recall.png",
    ]  # fmt: skip


def test_pictures_can_be_left_for_later(run):
    classified().save(run.evaluation)
    write_report(run, pictures=False)
    page = Page(run.report.read_text())
    assert "img" not in page.tags
    assert f"Drawn when asked for: ai4sdk report {run.id}" in page.text
    assert "Beware of the eel." in page.text
    run.predictions.write_bytes(b"damaged")
    write_report(run)
    assert Page(run.report.read_text()).tags.count("img") == 1  # what the metrics give


def test_a_report_of_a_regressor():
    targets = np.arange(20.0).reshape(10, 2)
    scores = regression_scores(targets, targets + 1, names=["salt", "heat"])
    page = Page(render_report(Report("r", "run", "succeeded", PLAN, scores)))
    for word in ("R²", "Bias", "1.0000", "Always naming the mean", "salt", "heat", "median absolute error"):
        assert word in page.text


def test_a_report_without_evaluation_and_metrics(run):
    run.metrics.unlink()
    run.events.unlink()
    write_report(run, state="failed")
    page = Page(run.report.read_text())
    assert "was not evaluated" in page.text
    assert "failed" in page.text
    assert "img" not in page.tags


def test_a_plan_of_next_to_nothing_is_no_obstacle():
    page = Page(render_report(Report("r", "run", "succeeded", {})))
    assert "Go on" in page.text


def test_no_text_of_a_users_becomes_markup():
    plan = json.loads(json.dumps(PLAN).replace("fish", json.dumps(EVIL)[1:-1]))
    plan["job"][EVIL] = EVIL
    plan["packages"][EVIL] = EVIL
    found = classified([EVIL, "</td></table>", "<img src=x onerror=alert(1)>"])
    found.notes.append(EVIL)
    scores = {**found.to_json(), "task": "classification"}
    report = Report(EVIL, EVIL, EVIL, plan, scores, split=EVIL, description=EVIL, timing=[(EVIL, 1.0)])
    page = Page(render_report(report))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [attribute for attribute in page.attributes if attribute[1].startswith("on")]
    assert EVIL in " ".join(page.words)


def test_nothing_is_fetched_and_nothing_runs(run):
    classified().save(run.evaluation)
    write_report(run)
    content = run.report.read_text()
    page = Page(content)
    assert {tag for tag in page.tags if tag in {"script", "link", "iframe", "object", "form"}} == set()
    sources = [value for tag, name, value in page.attributes if name in {"src", "href", "srcset", "action"}]
    assert sources
    assert all(value.startswith("data:image/png;base64,") for value in sources)
    style = re.search(r"<style>(.*?)</style>", content, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in content


def test_long_tables_are_folded():
    count = 50
    labels = np.arange(count)
    scores = classification_scores(labels, np.eye(count) * 5)
    page = Page(render_report(Report("r", "run", "succeeded", {}, scores)))
    assert "50 classes" in page.text
    assert "every answer was right" in page.text


def test_phases_are_timed_over_all_attempts():
    events = [
        {"time": 0, "event": "task started"},
        {"time": 10, "event": "phase", "phase": "fit"},
        {"time": 40, "event": "checkpoint"},
        {"time": 1000, "event": "task started"},  # killed some time after 40
        {"time": 1010, "event": "phase", "phase": "fit"},
        {"time": "broken"},
        {"time": 1030, "event": "task ended"},
        {"time": 2000, "event": "task started"},
        {"time": 2005, "event": "phase", "phase": "evaluate"},
    ]
    assert phase_times(events, 2007) == [("fit", 50.0), ("evaluate", 2.0)]
    assert phase_times([], 0) == []
