import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import torch
from markupsafe import escape

from setpoint.insight.by_row import by_type
from setpoint.insight.explain import explain_rows
from setpoint.insight.explaining_run import about_overfit, about_types
from setpoint.insight.explanation import Section
from setpoint.insight.history import history, points
from setpoint.insight.overfitting import overfit
from setpoint.insight.page import (
    Page,
    Part,
    Trained,
    detail_part,
    explanation_parts,
    result_parts,
    training_plots,
)
from setpoint.insight.report import to_html, unbroken, write_report
from setpoint.insight.rows import counted
from setpoint.insight.run_plots import tuning_figure
from setpoint.insight.slides import slides
from setpoint.insight.summary import detail_tables, summary_rows, summary_table, verdict
from setpoint.tasks.base import Sample


def record(score, parameters=1000, seeds=None, **more):
    table = {"O": {"precision": score, "recall": score, "f1": score, "support": 1234}}
    result = {
        "metrics": {"f1": score, "tokens": table},
        "parameters": parameters,
        "bytes": 45_149_506,
        "latency_ms": 1.5,
    }
    if seeds:
        result["seeds"] = {str(i): {"metrics": {"f1": s}} for i, s in enumerate(seeds)}
    return result | more


def run(low=0.003, high=0.021, mean=0.012, n=3, **changes):
    return {
        "name": "conll <b>2003</b>",
        "task": "token-classification",
        "metric": "f1",
        "temperature": "T = 4",
        "teacher": record(0.9, 56_000),
        "student_hard": record(0.878, seeds=[0.87, 0.88, 0.884], agreement={"top1": 0.95, "kl": 0.1}),
        "student": record(0.89, seeds=[0.88, 0.89, 0.9], agreement={"top1": 0.97, "kl": 0.05}),
        "gain": {"mean": mean, "low": low, "high": high, "n": n},
    } | changes


CURVE = [{"at": t, "mean": 0.9 - t / 100, "low": 0.8, "high": 0.95} for t in (1.0, 2.0, 4.0)]
TUNING = {
    "verdict": {
        "knob": "temperature", "curve": CURVE, "measured_at": {"steps": 20, "share": 0.25},
        "sentence": "T is flat from 2 to 4.", "default": 0, "best": 1, "chosen": 0,
    },
    "suggestion": {"temperature": 3.0, "low": 1.0, "high": 9.0},
    "how": "All together.",
    "dimensions": [{"name": "temperature", "log": True}],
    "candidates": [
        {"values": {"temperature": 2.0}, "failed": None, "scores": [{"seed": 0, "steps": 10, "value": 0.1}]},
        {
            "values": {"temperature": 4.0}, "failed": None,
            "scores": [{"seed": s, "steps": 20, "value": 0.85 + s / 100} for s in (0, 1)],
        },
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Distilling at T = 4 gained 1.20 points over hard labels (95 % interval +0.30 … +2.10, 3 seeds)."),
        (
            {"low": -0.021, "high": -0.003, "mean": -0.012},
            "Distilling at T = 4 lost 1.20 points to hard labels (95 % interval -2.10 … -0.30, 3 seeds).",
        ),
        (
            {"low": -0.01, "high": 0.02, "mean": 0.005},
            "Distilling at T = 4 made no difference to hard labels that can be told from noise: +0.50 points "
            "(95 % interval -1.00 … +2.00, 3 seeds).",
        ),
        (
            {"low": None, "high": None, "mean": 0.005, "n": 1},
            "Distilling at T = 4 changed f1 by +0.50 points against hard labels; one seed tells no noise.",
        ),
        ({"gain": None}, "No student was trained on hard labels to compare with."),
    ],
)
def test_the_verdict_says_no_more_than_the_figures(changes, sentence):
    assert (
        verdict(run(**changes)) == f"The student is 56× smaller than its teacher and keeps 98.9% of its f1. {sentence}"
    )


def test_the_table_holds_the_figures():
    rows = summary_rows(run())
    assert [row["model"] for row in rows] == ["teacher", "student, hard labels", "student, distilled"]
    assert rows[2] == {
        "model": "student, distilled", "parameters": "1,000", "size": "45.1 MB", "latency": "1.50 ms",
        "f1": "0.8900 (0.8800 … 0.9000)", "agreement": "97.00%",
    }  # fmt: skip
    assert summary_table(run()).row_count == 3


def test_the_terminal_gets_the_students_table_with_the_others_beside_it():
    (table,) = detail_tables(run())
    assert table.title == "tokens, by tag: student, distilled"
    cells = [list(column.cells) for column in table.columns]
    assert cells == [["O"], ["0.8900"], ["0.8900"], ["0.8900"], ["0.9000"], ["0.8780"], ["1,234"]]
    many = run()
    many["student"]["metrics"]["tokens"] = {str(i): many["student"]["metrics"]["tokens"]["O"] for i in range(25)}
    assert detail_tables(many) == []


class Html(HTMLParser):
    """What a page loads, shows, links and names; the headings in order; scripts and data by their element."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.text, self.ids, self.links, self.headings, self.tags = [], [], [], [], [], []
        self.labelled, self.scripts, self._in = {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self._in = tag
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        if tag in ("script", "link", "img", "iframe") and (values.get("src") or values.get("href")):
            self.loads.append(values)
        if tag == "a":
            self.links.append(values["href"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "aria-labelledby" in values:
            self.labelled[values["id"]] = values["aria-labelledby"]

    def handle_data(self, data):
        (self.scripts if self._in in ("script", "style") else self.text).append(data)


HOSTILE = "</script><script>alert(1)</script><!-- \u2028 {{ 7 * 7 }}"
LABELS = torch.arange(3).repeat(20)
TEACHER = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(3)[LABELS]
LOG = [
    {"step": 10 * i, "loss": 2.0 / i, "temperature": 4.0 / i, "student_temperature": 4.0 / i, "hard": 1.0,
     "effective_classes": 2.0, "divergence": 0.5, "kd_gradient_share": 0.9}
    for i in range(1, 11)
]  # fmt: skip


@pytest.fixture(scope="module")
def whole():
    """A page with everything a run can have, all its names hostile."""
    names = [HOSTILE, f"ORG{HOSTILE}", "PER"]
    rows = counted(TEACHER, LABELS, TEACHER / 2, class_names=names, row_names=[f"{HOSTILE} {i}" for i in range(60)])
    found = explain_rows(rows, 4.0)
    types = {HOSTILE: [i % 2 == 0 for i in range(60)], "number": [i % 2 == 1 for i in range(60)]}
    found = replace(found, by_type=by_type(rows, 4.0, types), overfit=overfit(found, rows, rows, 60))
    more = {"Types of rows": about_types(found.by_type), "Training rows and others": about_overfit(found)}
    found = replace(found, sections=(*found.sections, *(Section(title, tuple(told)) for title, told in more.items())))
    trained = Trained({"student": {0: points(LOG, "loss")}}, history({0: LOG}), [1.0, 2.0, 3.0])
    page = Page(
        title=HOSTILE, about=HOSTILE, verdict=verdict(run()), found=found, classes=names, slides=slides(rows, found),
        note=[HOSTILE], first=result_parts(run(name=HOSTILE), TUNING),
        rest=[
            *explanation_parts(found, {"Training": training_plots(trained)}),
            Part("Training", ["It trained."], plots=training_plots(trained)),
            detail_part(run(), f"name: {HOSTILE}", {"teacher": 12.0}),
        ],
    )  # fmt: skip
    return page, to_html(page)


def test_the_page_is_whole_offline_and_small(whole, tmp_path):
    page, text = whole
    html = Html(text)
    assert html.loads == []
    assert not [link for link in html.links if not link.startswith("#")]
    shown = " ".join(html.text)
    assert unbroken(page.verdict) in shown
    for section in page.found.sections:
        for sentence in section.sentences:
            assert unbroken(sentence) in shown, sentence
    assert unbroken(TUNING["verdict"]["sentence"]) in shown
    for value in ("0.8900 (0.8800 … 0.9000)", "45.1 MB", "1,234", "12.0", "95 % interval, after 25 % of the training"):
        assert value in shown, value
    write_report(tmp_path / "report.html", page)
    assert (tmp_path / "report.html").read_text() == text
    assert len(text.encode()) < 8_000_000


def test_every_plot_has_its_place_its_data_and_its_words(whole):
    page, text = whole
    html = Html(text)
    names = [plot.name for plot in page.plots]
    assert {
        "scores", "tuning", "effective-classes", "dark-mass", "gradient-shares", "gradient-norms", "gradient-limit",
        "nll", "ece", "reliability", "kl", "classes", "overfit", "curves", "temperature", "softness", "terms",
        "shares", "temperatures",
    } == set(names)  # fmt: skip
    assert len(set(names)) == len(names)
    assert len(set(html.ids)) == len(html.ids)
    for plot in page.plots:
        assert f"plot-{plot.name}" in html.ids
        data = json.loads(re.search(rf'id="{plot.name}-data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
        assert data["data"], plot.name
        assert f'aria-label="{escape(plot.says)}"' in text


def test_headings_are_in_order_and_contents_lead_somewhere(whole):
    _, text = whole
    html = Html(text)
    assert html.headings[0] == 1
    assert html.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(html.headings))
    for landmark in ("header", "nav", "main", "footer"):
        assert html.tags.count(landmark) == 1
    assert html.links
    assert {link[1:] for link in html.links} <= set(html.ids)
    assert html.labelled.keys() == {link[1:] for link in html.links}
    assert set(html.labelled.values()) <= set(html.ids)


def test_names_are_anybodys_text(whole):
    """Nothing of a name is markup, script or template, wherever it stands."""
    _, text = whole
    assert "<script>alert(1)" not in text
    assert "49" not in re.findall(r"\{\{.*?\}\}", text)
    html = Html(text)
    assert html.tags.count("script") == len([1 for data in html.scripts if data.strip()]) - html.tags.count("style")
    assert " ".join(html.text).count(HOSTILE) > 10
    slid = json.loads(re.search(r'id="slides-data">(.*?)</script>', text, re.DOTALL)[1])
    assert slid["rows"][0].keys() == {"teacher", "student", "shown"}


def test_the_browser_may_run_these_two_scripts_alone(whole):
    _, text = whole
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; ")
    allowed = re.search("script-src (.*)", policy)[1].split()
    inline = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline]
    assert allowed == [f"'sha256-{digest}'" for digest in digests]
    assert len(inline) == 2


def test_the_search_is_drawn_as_it_was_measured():
    """The curve and its band point by point; a dot for each training at the last rung, and none for shorter ones."""
    low, high, mean, dots = tuning_figure(TUNING).data
    assert [list(trace.y) for trace in (low, high, mean)] == [[p[k] for p in CURVE] for k in ("low", "high", "mean")]
    assert list(mean.x) == [1.0, 2.0, 4.0]
    assert (list(dots.x), list(dots.y), list(dots.customdata)) == ([4.0, 4.0], [0.85, 0.86], [0, 1])


def test_samples_are_shown_and_a_text_is_never_markup():
    made = {
        "teacher": [
            Sample("text", "<script>alert(1)</script> & more"),
            Sample("image", "data:image/png;base64,AAAA", 'a "grid"'),
            Sample("audio", "data:audio/wav;base64,BBBB", "seven"),
        ]
    }
    page = Page("x", "about", "verdict", None, (), (), first=[Part("Samples", ["Drawn."], samples=made)])
    html = to_html(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    assert "<script>alert" not in html
    assert '<img src="data:image/png;base64,AAAA" alt="a &#34;grid&#34;">' in html
    assert '<audio controls src="data:audio/wav;base64,BBBB"></audio>' in html
    assert "<figcaption>seven</figcaption>" in html
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html).group(1)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert (rules["default-src"], rules["img-src"], rules["media-src"]) == ("'none'", "data: blob:", "data:")


@pytest.mark.parametrize(
    ("kind", "content"), [("image", "https://x/y.png"), ("audio", "data:text/html,x"), ("image", "javascript:x")]
)
def test_a_sample_is_no_address(kind, content):
    with pytest.raises(ValueError, match=f"a sample of kind {kind} begins with data:{kind}/"):
        Sample(kind, content)
