"""The report of a study stands alone, says what a reader needs, and no text of a user's can do anything in it."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai4sdk.studies.importance import Importances
from ai4sdk.studies.point import Objective, PointState
from ai4sdk.studies.report import MOST_ROWS, render

from .views import ACCURACY, LOSS, fish, result, view

EVIL = "<script>alert('x')</script>\"' onload=alert(1) &amp;"


class Page(HTMLParser):
    """Tags, attributes and text of a page; unbalanced tags fail."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, content):
        super().__init__()
        self.tags, self.attributes, self.words, self.scripts, self.open = [], [], [], [], []
        self.feed(content)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] in ("script", "style") else self.words).append(data)


def check_harmless(content):
    page = Page(content)
    assert page.tags.count("script") == 1
    # The policy allows exactly the one script that is ours.
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and "default-src" in (value or ""))
    script = re.search(r"<script>(.*?)</script>", content, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" == policy
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "srcset", "data")
        if name == "href":
            assert not re.match(r"(?i)[a-z]*:", value)
    for chart in re.findall(r"<svg xmlns.*?</svg>", content, re.DOTALL):
        ElementTree.fromstring(chart)
    return page


def test_the_page_says_what_a_reader_needs():
    importances = Importances({"training.optimizer.lr": 0.9, "seed": 0.1}, "Left out: momentum.")
    content = render(fish(), [importances], "defaults:\n  - fish\n")
    page = check_harmless(content)
    for words in (
        "fish running",
        "0.2052 val_loss lower is better",
        "59 points done of 64",
        "50 min 0 s took",
        "4 waiting, 1 running, 48 succeeded, 4 failed, 7 pruned, 5 reused",
        f"Point 8 training.optimizer.lr {fish().results[8].point.params['training.optimizer.lr']}",
        "ai4sdk run config=runs/20260101-120000-fish-abcd/best.yaml",
        "Left out: momentum.",
        "90%",
        "ValueError: loss is NaN in epoch 3 7 , 20 , 33 , 46".replace(" ,", ","),
        "ai4sdk study resume 20260101-120000-fish-abcd --failed",
    ):
        assert words in page.text, words
    assert content.count("<tr") == 1 + 60 + 2
    assert len(re.findall("<svg xmlns", content)) == 3 + 5


def test_the_table_is_sorted_the_best_first_and_can_be_sorted_by_each_column():
    content = render(fish(), (), None)
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", content.split('class="points"')[1], re.DOTALL)
    figures = [re.findall(r'data-value="([^"]*)"', row)[1] for row in rows[1:49]]
    assert [float(value) for value in figures] == sorted(map(float, figures))
    assert rows[0].count("<button") == rows[0].count("<th") == 9


def test_points_are_linked_to_the_reports_that_exist(tmp_path):
    folder, elsewhere = tmp_path / "runs" / "study", tmp_path / "runs" / "an old run"
    own = folder / "points" / "00000"
    for run in (own, elsewhere, folder / "points" / "00002"):
        run.mkdir(parents=True)
    for run in (own, elsewhere):
        (run / "report.html").write_text("")
    study = view(
        result(0, {}, (1.0,), run=own),
        result(1, {}, (2.0,), run=elsewhere, reused=True),
        result(2, {}, (3.0,), run=folder / "points" / "00002"),
        result(3, {}, (4.0,)),
    )
    links = [value for _, name, value in Page(render(study, (), None, folder=folder)).attributes if name == "href"]
    assert links == ["points/00000/report.html", "../an%20old%20run/report.html"]


def test_seeds_are_summarised():
    study = view(*(result(n, {"lr": n // 3, "seed": n % 3}, (float(n // 3 + n % 3),)) for n in range(6)))
    page = check_harmless(render(study, (), None))
    assert "Over seeds" in page.text
    assert "1.000 ± 1" in page.text


def test_two_objectives_have_a_front():
    page = check_harmless(render(fish(80, objectives=(LOSS, ACCURACY)), (), None))
    assert "Pareto front" in page.text
    assert "test/accuracy of the first" in page.text


def test_each_objective_is_told_what_mattered_for_it():
    study = fish(objectives=(LOSS, ACCURACY))
    content = render(study, [Importances({"lr": 1.0}), Importances({"hidden": 1.0}, "Left out: lr.")], None)
    assert content.count("<h2>What mattered</h2>") == 1
    matter = content.partition("<h2>What mattered</h2>")[2].partition("<h2>")[0]
    assert matter.index("<h3>val_loss</h3>") < matter.index("<h3>test/accuracy</h3>") < matter.index("Left out: lr.")
    assert "<h3>" not in render(fish(), [Importances({"lr": 1.0})], None)


def test_a_long_table_is_cut_and_says_so():
    study = view(*(result(n, {"x": n}, (float(n),)) for n in range(MOST_ROWS + 5)))
    content = render(study, (), None)
    assert content.count("<tr") == 1 + MOST_ROWS
    assert f"The first {MOST_ROWS:,} of {MOST_ROWS + 5:,}." in Page(content).text


def test_a_study_without_points_has_a_page():
    page = check_harmless(render(view(total=3, objectives=()), (), None))
    assert "3 waiting" in page.text
    assert "No point has succeeded with a value yet." in page.text


def test_no_text_of_a_user_is_anything_but_text():
    params = {EVIL: EVIL, "list": [EVIL], "seed": 1}
    study = view(
        result(0, params, (1.0,)),
        result(1, {**params, "seed": 2}, (2.0,)),
        result(2, {EVIL: "x", "list": 1, "seed": 1}, (3.0,)),
        result(3, params, cause=EVIL),
        result(4, params, (3.0,), PointState.PRUNED),
        objectives=(Objective(EVIL, "min"), Objective("b" + EVIL, "max")),
        name=EVIL,
        id=EVIL,
        config=EVIL,
        search=EVIL,
        state=EVIL,
    )
    page = check_harmless(render(study, [Importances({EVIL: 1.0}, EVIL)], EVIL))
    assert page.text.count("alert('x')") > 10


texts = st.text(max_size=8) | st.sampled_from([EVIL, "--><b>", "]]>", "\x00\x0b\ud800", "</style>"])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.dictionaries(texts, texts | st.floats(), max_size=3), st.floats()), max_size=6), texts)
def test_any_text_leaves_the_page_whole(points, text):
    results = [result(n, params, (value,), cause=text) for n, (params, value) in enumerate(points)]
    failed = result(len(points), {text: text}, cause=text)
    content = render(view(*results, failed, name=text, config=text), [Importances({text: 1.0}, text)], text)
    check_harmless(content)
    content.encode()


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_the_state_has_its_colour(state):
    assert f'<span class="state {state}">{state}</span>' in render(view(state=state), (), None)
