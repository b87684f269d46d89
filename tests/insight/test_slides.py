"""Which rows lie under the slider, and what of their logits goes with them."""

import json
import math

import torch

from setpoint.insight.explain import explain_rows
from setpoint.insight.report import slider
from setpoint.insight.rows import counted
from setpoint.insight.slides import ALL_SHOWN, EACH, MOST_LOGITS, TOP, slides

GENERATOR = torch.Generator().manual_seed(0)


def rows(classes=5, count=60, student=True, labels=True):
    v = 3 * torch.randn(count, classes, generator=GENERATOR)
    z = torch.randn(count, classes, generator=GENERATOR) if student else None
    return counted(v, torch.randint(0, classes, (count,), generator=GENERATOR) if labels else None, z)


def test_some_of_each_kind_and_none_twice():
    given = rows()
    found = explain_rows(given, 4.0)
    chosen = slides(given, found)
    names = [slide.name for slide in chosen]
    assert len(set(names)) == len(names) == 3 * EACH
    kinds = [slide.kind for slide in chosen]
    assert [kinds.count(kind) for kind in ("moves most", "least sure", "ordinary")] == [EACH] * 3
    assert names[:EACH] == [example.name for example in found.most_changed[:EACH]]
    least = [example.name for example in found.least_sure]
    assert {slide.name for slide in chosen if slide.kind == "least sure"} <= set(least)
    for slide in chosen:
        row = int(slide.name)
        assert slide.teacher == tuple(given.teacher_logits[row].tolist())
        assert slide.student == tuple(given.student_logits[row].tolist())
        assert slide.label == int(given.labels[row])


def test_where_there_are_few_rows_all_are_shown_and_at_t_1_none_moves():
    given = rows(count=3)
    chosen = slides(given, explain_rows(given, 4.0))
    assert sorted(slide.name for slide in chosen) == ["0", "1", "2"]
    assert {slide.kind for slide in chosen} == {"moves most"}  # the first reason is the one that is told
    given = rows()
    assert not [slide for slide in slides(given, explain_rows(given, 1.0)) if slide.kind == "moves most"]


def test_of_many_classes_the_first_are_shown_the_label_and_the_students_own():
    given = rows(classes=ALL_SHOWN + 6)
    for slide in slides(given, explain_rows(given, 4.0)):
        v, z = torch.tensor(slide.teacher), torch.tensor(slide.student)
        assert slide.shown[:TOP] == tuple(v.topk(TOP).indices.tolist())
        assert {slide.label, int(z.argmax())} <= set(slide.shown)
        assert len(set(slide.shown)) == len(slide.shown) <= TOP + 2
        assert slide.others == ALL_SHOWN + 6 - len(slide.shown)
    given = rows(classes=ALL_SHOWN, student=False, labels=False)
    assert {slide.shown for slide in slides(given, explain_rows(given, 4.0))} == {tuple(range(ALL_SHOWN))}


def test_a_large_vocabulary_has_fewer_rows():
    classes = 20_000
    given = rows(classes=classes, count=20, labels=False)
    chosen = slides(given, explain_rows(given, 4.0))
    assert 1 <= len(chosen) <= 12
    assert sum(2 * len(slide.teacher) for slide in chosen) <= MOST_LOGITS
    assert len({slide.kind for slide in chosen}) == 3


def test_a_masked_class_is_null_and_logits_come_back_bit_by_bit():
    v = torch.tensor([[1 / 3, -math.inf, 2.0], [math.pi, 1e-9, 0.0]])
    given = counted(v)
    chosen = slides(given, explain_rows(given, 4.0))
    for slide in chosen:
        back = json.loads(json.dumps(slide.logits(), allow_nan=False))
        values = [-math.inf if value is None else value for value in back["teacher"]]
        assert torch.equal(torch.tensor(values), v[int(slide.name)])
        assert back["student"] is None


def test_the_slider_reaches_all_temperatures_of_the_table_and_has_a_button_for_those_with_a_name():
    given = rows()
    found = explain_rows(given, 50.0)
    found_slider = slider(found)
    assert (found_slider["low"], found_slider["high"]) == (-2.0, 6.0)
    assert found_slider["buttons"]["T = 1"] == 1.0
    assert found_slider["buttons"]["explained, 50"] == 50.0
