"""What only a run has: series from logs, training rows beside others, types of rows; each rule from both sides."""

from dataclasses import replace

import pytest
import torch

from reference import distillation as ref
from setpoint import Constant, FocalTemperature, MultiTemperature, explain
from setpoint.insight import explaining_run
from setpoint.insight.by_row import by_type
from setpoint.insight.explain import explain_rows
from setpoint.insight.explain_run import spread
from setpoint.insight.explaining_run import about_distribution, about_overfit, about_training, about_types
from setpoint.insight.explanation import AtBoth, Fit, OfType, Overfit
from setpoint.insight.history import ends, history, points
from setpoint.insight.overfitting import kl, overfit
from setpoint.insight.rows import counted
from setpoint.insight.tables import tables
from setpoint.tasks.word_types import word_types

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(4).repeat(10)
TEACHER = 2 * torch.randn(40, 4, generator=GENERATOR)
STUDENT = TEACHER / 2 + torch.randn(40, 4, generator=GENERATOR)
ROWS = counted(TEACHER, LABELS, STUDENT)
FOUND = explain_rows(ROWS, 3.0)


def log(**series):
    """A log whose n-th entry has the n-th value of each series."""
    return [
        {"step": 10 * i} | dict(zip(series, values, strict=True))
        for i, values in enumerate(zip(*series.values(), strict=True), start=1)
    ]


def test_series_are_those_of_the_log():
    logs = {0: log(temperature=[4.0, 2.0], hard=[1.0, 0.5]), 1: log(temperature=[6.0, 1.0], hard=[2.0, 0.7])}
    found = history(logs)
    assert found == {
        "temperature": {0: [(10, 4.0), (20, 2.0)], 1: [(10, 6.0), (20, 1.0)]},
        "hard": {0: [(10, 1.0), (20, 0.5)], 1: [(10, 2.0), (20, 0.7)]},
    }
    assert ends(found["temperature"]) == (5.0, 1.5)
    fixed = history({0: log(temperature=[4.0, 4.0], student_temperature=[2.0, 2.0], effective_classes=[2.0, 2.1])})
    assert set(fixed) == {"effective_classes"}
    assert history({}) == {}
    assert points([{"step": 5, "eval_loss": 1.0}], "loss") == []


def test_what_is_said_of_the_training():
    moved = history({0: log(temperature=[6.0, 1.0], effective_classes=[5.0, 1.2], kd_gradient_share=[0.99, 0.88])})
    assert about_training(moved, {}) == [
        "The temperature went from 6 to 1.",
        "The targets had 5.00 effective classes at first and 1.20 in the end.",
        "The divergence went from 99% of the gradient on the student's logits to 88%: the nearer the student came to"
        " its teacher, the more labels said.",
    ]
    back = about_training(history({0: log(temperature=[4.0, 6.0, 4.0])}), {})
    assert back == ["The temperature moved, and ended where it began, at 4."]
    still = about_training(history({0: log(effective_classes=[2.0, 2.1], kd_gradient_share=[0.5, 0.61])}), {})
    assert still[0] == "The temperature stayed as it was, and the targets had about 2.10 effective classes."
    assert still[1].endswith("to 61%: once the labels were learnt, the teacher had the say.")
    kept = about_training(history({0: log(kd_gradient_share=[0.5, 0.59])}), {})
    assert kept == ["The divergence kept about 59% of the gradient on the student's logits."]
    assert about_training({}, {}) == []


@pytest.mark.parametrize(
    ("before", "last", "sentence"),
    [
        (1.0, 1 - explaining_run.STILL_FALLING, "still falling in the last fifth, by 5%"),
        (1.0, 0.96, "had settled by the end"),
        (1.0, 1.2, "had settled by the end"),
    ],
)
def test_whether_the_loss_had_settled(before, last, sentence):
    losses = [9.0] * 6 + [before] * 2 + [last] * 2
    (told,) = about_training({}, {0: list(enumerate(losses)), 1: list(enumerate(losses))})
    assert sentence in told
    assert about_training({}, {0: [(1, 2.0), (2, 1.0)]}) == []
    moved = history({0: log(temperature=[6.0, 1.0])})
    assert len(about_training(moved, {0: list(enumerate(losses))})) == 1  # losses at other temperatures are no curve


def over(train, validation):
    fits = [Fit("student", 1.0, accuracy, 0.9, nll, 0.0, ()) for accuracy, nll in ((0.991, 0.03), (0.96, 0.12))]
    return replace(FOUND, overfit=Overfit(1200, (AtBoth(1.0, 0, 0), AtBoth(3.0, train, validation)), *fits))


@pytest.mark.parametrize(
    ("train", "validation", "words"),
    [
        (0.01, 0.02, "2 times as far: it has over-fitted, and more data"),
        (0.01, 0.0199, "2 times as far: it has over-fitted a little."),
        (0.01, 0.0125, "1.2 times as far: it has over-fitted a little."),
        (0.01, 0.0124, "about as far: what it has learnt carries over."),
        (0.03, 0.01, "about as far: what it has learnt carries over."),
        (0.0, 0.01, "times as far: it has over-fitted, and more data"),
    ],
)
def test_overfitting(train, validation, words):
    told = about_overfit(over(train, validation))
    assert told[0].startswith(f"At T = 3 the student is {train:.3g} nats from its teacher on training rows")
    assert words in told[0]
    assert told[1] == (
        "It is right in 99.1% of these 1,200 training examples' rows and in 96% of the validation rows, with a loss of"
        " 0.03 and 0.12 nats."
    )


def test_a_student_that_is_its_teacher_has_not_overfitted():
    assert about_overfit(over(0.00001, 0.0009))[0] == (
        "On rows it was not trained on the student is less than 0.001 nats from its teacher at T = 3."
    )
    assert about_overfit(FOUND) == []


def test_the_divergence_on_both_by_loops():
    train = counted(TEACHER[:7], LABELS[:7], TEACHER[:7] / 3)
    found = overfit(FOUND, ROWS, train, 7)
    octaves = {2.0**k for k in range(-2, 6)}
    assert {at.temperature for at in found.at} == octaves | {3.0}
    for at in found.at:
        for rows, value in ((train, at.train), (ROWS, at.validation)):
            each = [
                ref.kl(ref.softmax(v, at.temperature), ref.softmax(z, at.temperature))
                for v, z in zip(rows.teacher_logits.tolist(), rows.student_logits.tolist(), strict=True)
            ]
            assert value == pytest.approx(sum(each) / len(each), rel=1e-4, abs=1e-7)
    right = (train.student_logits.argmax(-1) == train.labels).double().mean()
    assert found.train.accuracy == pytest.approx(float(right))
    assert kl(ROWS, 3.0) == pytest.approx(FOUND.at(3.0).kl, rel=1e-5)
    table = tables(replace(FOUND, overfit=found))["Training and validation rows"]
    assert [row[""] for row in table][-2:] == ["NLL at T = 1", "accuracy"]


def test_types_of_rows_by_loops():
    flags = {"even": [i % 2 == 0 for i in range(40)], "third": [i % 3 == 0 for i in range(40)], "none": [False] * 40}
    found = by_type(ROWS, 3.0, flags)
    assert by_type(replace(ROWS, labels=None), 3.0, flags) == by_type(replace(ROWS, student_logits=None), 3.0, {}) == ()
    assert [view.name for view in found] == ["even", "third"]
    for view in found:
        own = [i for i in range(40) if flags[view.name][i]]
        v, z, y = ([x[i].tolist() for i in own] for x in (TEACHER, STUDENT, LABELS))
        top = [[row.index(max(row)) for row in x] for x in (v, z)]
        assert view.rows == len(own)
        assert view.teacher == pytest.approx(sum(a == b for a, b in zip(top[0], y, strict=True)) / len(own))
        assert view.student == pytest.approx(sum(a == b for a, b in zip(top[1], y, strict=True)) / len(own))
        assert view.agreement == pytest.approx(sum(a == b for a, b in zip(*top, strict=True)) / len(own))
        soft = [float(torch.tensor(ref.entropy(ref.softmax(row, 3.0))).exp()) for row in v]
        assert view.effective_classes == pytest.approx(sum(soft) / len(own), rel=1e-5)


def test_what_is_said_of_types():
    def view(name, agreement, soft=2.0, rows=50):
        return OfType(name, rows, soft, 0.9, 0.8, agreement)

    assert about_types([view("number", 0.7), view("first word", 0.75, 3.0)]) == [
        "The student agrees with its teacher least on number, in 70% of 50 rows, where the teacher is right in 90% and"
        " the student in 80%; most on first word, in 75%.",
        "The softest targets are those of first word, with 3.00 effective classes.",
    ]
    assert about_types([view("number", 0.71), view("first word", 0.75)])[0] == (
        "Student and teacher agree about as often on all types, from 71% (number) to 75% (first word)."
    )
    assert about_types([view("number", 0.7), view("rare", 0.1, rows=19)]) == []


def test_types_of_words():
    sentences, names = [["Anna", "met", "B2"], ["the", "EU"]], ("B-PER", "O")
    found = word_types(sentences, [[0, 1, 1], [1, 1]], names, {"the", "met"})
    assert found == {
        "first words": [[True, False, False], [True, False]],
        "capitalised words": [[True, False, True], [False, True]],
        "numbers": [[False, False, True], [False, False]],
        "words unseen in training": [[True, False, True], [False, True]],
        "words in an entity": [[True, False, False], [False, False]],
        "words outside entities": [[False, True, True], [True, True]],
    }
    assert "words in an entity" not in word_types(sentences, [[0, 1, 1], [1, 1]], ("NOUN", "VERB"), set())


def test_temperatures_of_rows_are_those_of_a_policy_that_has_one_for_each():
    policy = FocalTemperature(4.0)
    assert spread(policy, ROWS) == policy(TEACHER, STUDENT, LABELS, 1.0).teacher.squeeze(-1).tolist()
    for other in (Constant(2.0), MultiTemperature()):
        assert spread(other, ROWS) == []
    assert about_distribution([]) == []
    assert explain(TEACHER).overfit is None
