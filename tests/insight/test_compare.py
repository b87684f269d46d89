import json
import math
import re
from html.parser import HTMLParser

import pytest
from scipy import stats

from runs import finished_run
from setpoint.errors import RunError
from setpoint.insight.compare import compare
from setpoint.insight.compare_page import WIDTH, bars, compared_rows, print_comparison, write_comparison
from setpoint.maths.stats import Interval
from worker import command

LOW = {"0": 0.80, "1": 0.81, "2": 0.79}
HIGH = {"0": 0.85, "1": 0.865, "2": 0.835}


def two(tmp_path, one, other, **changes):
    finished_run(tmp_path / "a", one)
    finished_run(tmp_path / "b", other, **changes)
    return compare(tmp_path / "a", tmp_path / "b")


def sentence(tmp_path, *scores, **changes):
    (told,) = two(tmp_path, *scores, **changes).sentences
    return told.replace(f"{tmp_path}/", "")


def test_runs_of_the_same_seeds_are_compared_in_pairs(tmp_path):
    found = two(tmp_path, LOW, HIGH)
    first, other = found.runs
    expected = stats.ttest_rel(list(HIGH.values()), list(LOW.values())).confidence_interval()
    assert (other.difference.low, other.difference.high) == pytest.approx((expected.low, expected.high))
    assert (other.difference.mean, other.paired) == (pytest.approx(0.05), True)
    assert (first.difference, first.sentence) == (None, "")
    assert (other.score, other.teacher_score, other.teacher) == (pytest.approx(0.85), 0.9, "bert-base")
    low, high = 100 * expected.low, 100 * expected.high
    assert other.sentence == (
        f"{tmp_path}/b scores 5.00 points of f1 more than {tmp_path}/a"
        f" (95 % interval {low:+.2f} … {high:+.2f}, 3 seeds in pairs)."
    )


def test_runs_of_other_seeds_have_welchs_interval(tmp_path):
    other = {"5": 0.85, "6": 0.865}
    found = two(tmp_path, LOW, other).runs[1]
    expected = stats.ttest_ind(list(other.values()), list(LOW.values()), equal_var=False).confidence_interval()
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high))
    assert not found.paired
    assert "5 students of other seeds, not in pairs" in found.sentence


def test_there_is_no_winner_within_the_interval(tmp_path):
    told = sentence(tmp_path, LOW, {"0": 0.81, "1": 0.80, "2": 0.80})
    assert re.fullmatch(
        r"b cannot be told from a by its f1: \+0\.33 points \(95 % interval -2\.\d\d … \+3\.\d\d, .*", told
    )


def test_a_smaller_run_that_is_worse_is_said_to_be_both(tmp_path):
    told = sentence(tmp_path, HIGH, LOW, parameters=400)
    assert told.startswith("b, 2.5× smaller, scores 5.00 points of f1 less than a (95 % interval -")


def test_one_seed_tells_no_noise(tmp_path):
    told = sentence(tmp_path, {"0": 0.8}, {"0": 0.9}, parameters=1500)
    assert told == (
        "b, 1.5× as large, scores +10.00 points of f1 against a; one seed tells no noise, so nobody can say which is"
        " better."
    )


def test_three_runs_say_that_their_intervals_hold_one_by_one(tmp_path):
    for name, scores in (("a", LOW), ("b", HIGH), ("c", LOW)):
        finished_run(tmp_path / name, scores)
    found = compare(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert found.sentences[-1] == (
        "Each interval holds for its own comparison; that all of them hold at once is less sure."
    )
    assert [run.difference and run.difference.mean for run in found.runs] == [None, pytest.approx(0.05), 0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"task": "text-classification"},
            "its task is text-classification, not token-classification: give runs of one",
        ),
        ({"metric": "accuracy"}, "its metric is accuracy, not f1: give runs of one metric"),
        ({"test": "another"}, "it was measured on other test data: give runs with one test split, data.max_length"),
        ({"support": 39}, "it was measured on other test data: "),  # a shorter max_length has left a word out
        ({"test": None}, r"nobody knows what '.*b' was tested on: run its recipe again"),
        ({"student": None}, "lacks what is compared"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, changes, sentence):
    with pytest.raises(RunError, match=sentence):
        two(tmp_path, LOW, LOW, **changes)


def test_what_is_no_finished_run_is_refused(tmp_path):
    finished_run(tmp_path / "a", LOW)
    with pytest.raises(RunError, match="1 run is given to compare: give two run folders or more"):
        compare(tmp_path / "a")
    with pytest.raises(RunError, match=r"none' has no recipe.json: give the folder of a run that is finished"):
        compare(tmp_path / "a", tmp_path / "none")
    (tmp_path / "a/metrics.json").write_text('{"name": "a"}')
    with pytest.raises(RunError, match=r"metrics.json' is damaged"):
        compare(tmp_path / "a", tmp_path / "a")


def test_what_differs_between_the_recipes_is_told(tmp_path):
    recipe = {"temperature": {"policy": "linear", "start": 8.0}, "tune": {"budget": "1x"}}
    changes = two(tmp_path, LOW, LOW, recipe=recipe).runs[1].changes
    assert changes == {
        "temperature.policy": ("constant", "linear"),
        "temperature.temperature": (4.0, None),
        "temperature.start": (None, 8.0),
    }


class Page(HTMLParser):
    """Cells of the tables, and what a hostile name could have made: elements and attributes."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.elements, self.links, self.within = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag in ("td", "th"):
            self.cells.append("")
            self.within = True

    def handle_endtag(self, tag):
        self.within = self.within and tag not in ("td", "th")

    def handle_data(self, data):
        if self.within:
            self.cells[-1] += data


def test_the_page_is_self_contained_and_escapes_names(tmp_path, capsys):
    hostile = tmp_path / "<script>alert(1)<"
    finished_run(tmp_path / "a", LOW)
    finished_run(hostile, HIGH, temperature="T = <b>4", recipe={"note": "<img src=x>"})
    found = compare(tmp_path / "a", hostile)
    write_comparison(tmp_path / "compare.html", found)
    page = Page((tmp_path / "compare.html").read_text())
    assert not {"script", "img", "b", "link", "iframe"} & set(page.elements)
    assert page.links == []
    cells = [cell.strip() for cell in page.cells]
    for row in compared_rows(found):
        assert all(value in cells for value in row.values())
    assert "<img src=x>" in cells
    assert (tmp_path / "compare.html").stat().st_size < 20_000
    print_comparison(found)
    assert "alert(1)" in capsys.readouterr().out.replace("\n", "")


def test_bars_are_on_one_axis_that_has_zero_in_it():
    above, below, alone = (
        Interval(0.02, 0.01, 0.03, 3),
        Interval(-0.01, -0.03, 0.01, 3),
        Interval(0.0, math.nan, math.nan, 1),
    )
    first, one, two, three = bars([None, above, below, alone])
    assert first is None
    assert one["zero"] == two["zero"] == three["zero"] == three["low"] == WIDTH / 2
    assert (one["high"], two["low"]) == (WIDTH - 10, 10)
    assert one["low"] - one["zero"] == pytest.approx((WIDTH / 2 - 10) / 3, abs=0.01)


@pytest.mark.slow
def test_the_command_prints_a_table_and_json(tmp_path):
    finished_run(tmp_path / "a", {"0": 0.8})
    finished_run(tmp_path / "b", {"0": 0.9})

    def setpoint(*arguments):
        return command("compare", *arguments, cwd=tmp_path)

    shown = setpoint("a", "b", "--out", "page.html")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.endswith("Page: page.html\n")
    assert "b scores +10.00 points of f1 against a" in " ".join(shown.stdout.split())
    assert (tmp_path / "page.html").is_file()
    found = json.loads(setpoint("a", "b", "--json").stdout)
    assert [run["run"] for run in found["runs"]] == ["a", "b"]
    assert found["runs"][1]["difference"] == {"mean": 0.1, "low": None, "high": None, "n": 1}
    assert found["sentences"] == [found["runs"][1]["sentence"]]
    wrong = setpoint("a", "none")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "setpoint: 'none' has no recipe.json: give the folder of a run that is finished\n"
