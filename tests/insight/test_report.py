import json
import re
from html.parser import HTMLParser

import pytest

from setpoint.insight.report import softness_sentence, tuning_figure, write_report
from setpoint.insight.summary import detail_tables, summary_rows, summary_table, verdict


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


SOFTNESS = {
    "temperatures": [0.5, 1.0, 4.0, 8.0],
    "effective_classes": [1.01, 1.1, 2.5, 6.0],
    "top_probability": [0.99, 0.97, 0.6, 0.3],
    "classes": 9,
    "used": 4.0,
}


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


def test_what_the_temperature_does_in_a_sentence():
    assert softness_sentence(SOFTNESS) == (
        "At T = 4 the teacher's targets are as soft as 2.50 equally likely classes of 9, with 60% on the top class; "
        "at T = 1 it is 1.10 and 97%."
    )


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.loads, self.text, self.ids, self._in = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self._in = tag
        self.ids.append(values.get("id"))
        if tag in ("script", "link", "img", "iframe") and (values.get("src") or values.get("href")):
            self.loads.append(values)

    def handle_data(self, data):
        if self._in not in ("script", "style"):
            self.text.append(data)


def test_the_page_is_whole_offline_and_escaped(tmp_path):
    path = tmp_path / "report.html"
    write_report(
        path, run(), recipe_yaml="name: <script>alert(1)</script>", softness=SOFTNESS,
        curves={"student": {0: [(10, 2.0), (20, 1.0)], 1: [(10, 2.5), (20, 1.5)]}}, seconds={"teacher": 12.0},
    )  # fmt: skip
    text = path.read_text()
    page = Page(text)
    assert page.loads == []
    assert "<script>alert(1)" not in text
    shown = " ".join(page.text)
    assert "conll <b>2003</b>" in shown
    assert verdict(run()) in shown
    for value in ("0.8900 (0.8800 … 0.9000)", "45.1 MB", "1,234", "12.0"):
        assert value in shown, value
    data = {
        name: json.loads(re.search(rf'id="{name}-data">(.*?)</script>', text, re.DOTALL)[1])
        for name in ("scores", "softness", "curves")
    }
    assert data["softness"]["data"][0]["type"] == "scatter"
    lines = data["curves"]["data"]
    assert [(line["name"], line["y"], line["showlegend"]) for line in lines] == [
        ("student, distilled", [2.0, 1.0], True),
        ("student, distilled", [2.5, 1.5], False),
    ]
    assert {"scores", "softness", "curves"} <= set(page.ids)
    assert path.stat().st_size < 8_000_000


def test_the_search_is_drawn_as_it_was_measured():
    """The curve and its band point by point; a dot for each training at the last rung, and none for shorter ones."""
    points = [{"at": t, "mean": 0.9 - t / 100, "low": 0.8, "high": 0.95} for t in (1.0, 2.0, 4.0)]
    tuning = {
        "verdict": {"knob": "temperature", "curve": points, "measured_at": {"steps": 20}},
        "dimensions": [{"name": "temperature", "log": True}],
        "candidates": [
            {"values": {"temperature": 2.0}, "scores": [{"seed": 0, "steps": 10, "value": 0.1}]},
            {
                "values": {"temperature": 4.0},
                "scores": [{"seed": s, "steps": 20, "value": 0.85 + s / 100} for s in (0, 1)],
            },
        ],
    }
    low, high, mean, dots = tuning_figure(tuning).data
    assert [list(trace.y) for trace in (low, high, mean)] == [[p[k] for p in points] for k in ("low", "high", "mean")]
    assert list(mean.x) == [1.0, 2.0, 4.0]
    assert (list(dots.x), list(dots.y), list(dots.customdata)) == ([4.0, 4.0], [0.85, 0.86], [0, 1])
