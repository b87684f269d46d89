"""Each rule at its threshold, from both sides."""

from dataclasses import replace

import pytest
import torch

from setpoint import explain
from setpoint.insight import explaining
from setpoint.insight.explaining import (
    about_classes,
    about_examples,
    about_fidelity,
    about_fits,
    about_gradient,
    about_targets,
)
from setpoint.insight.explanation import Example, Fidelity, Fit, OfClass, Said

LABELS = torch.arange(10).repeat(6)
TEACHER = torch.randn(60, 10, generator=torch.Generator().manual_seed(0)) + 6 * torch.eye(10)[LABELS]
BASE = explain(TEACHER, LABELS, temperature=4.0)
SUGGESTION = replace(BASE.suggestion, temperature=3.0, low=1.0, high=9.0)


def with_row(temperature=4.0, **changes):
    """The explanation with its row for T changed."""
    table = tuple(replace(at, **changes) if at.temperature == temperature else at for at in BASE.over_temperature)
    return replace(BASE, over_temperature=table, suggestion=SUGGESTION)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"dark_mass": 0.38, "runner_up_share": 0.6, "other_classes": 3.0},
            "38% of the mass is off the top class, most of it on one other class.",
        ),
        (
            {"dark_mass": 0.38, "runner_up_share": 0.45, "other_classes": 2.7},
            "38% of the mass is off the top class, shared by about 3 other classes.",
        ),
        (
            {"dark_mass": 0.38, "runner_up_share": 0.2, "other_classes": 7.4},
            "38% of the mass is off the top class, spread over about 7 other classes.",
        ),
        ({"dark_mass": 0.0004, "runner_up_share": 0.6}, "hardly any mass, less than 0.1%, is off the top class."),
        (
            {"dark_mass": 0.0, "runner_up_share": None, "other_classes": None},
            "hardly any mass, 0%, is off the top class.",
        ),
    ],
)
def test_how_soft_the_targets_are(changes, words):
    told = about_targets(with_row(effective_classes=3.1, **changes))
    assert told[0] == f"At T = 4 the targets spread over 3.10 of 10 classes; {words}"
    one = BASE.at(1.0)
    assert told[1].startswith(f"At T = 1 they spread over {one.effective_classes:.2f}, with ")


def test_targets_that_say_nothing_are_said_so():
    assert about_targets(with_row(effective_classes=1.005))[2] == (
        "The targets at T = 4 have 1.00 effective classes of 10 and say no more than hard labels: raise the"
        " temperature."
    )
    assert "tell the classes apart no more" in about_targets(with_row(effective_classes=9.95))[2]
    assert not [s for s in about_targets(with_row(effective_classes=3.0)) if "effective classes" in s]


def test_a_smoothed_teacher_above_one_is_said_so():
    smoothed = replace(BASE, suggestion=replace(SUGGESTION, label_smoothing=0.1))
    words = "The teacher looks trained with label smoothing, about 0.1; what such targets say"
    assert about_targets(smoothed)[-2].startswith(words)
    cold = replace(smoothed, temperature=1.0)
    for found in (cold, BASE):
        assert not [s for s in about_targets(found) if "smoothing" in s]


@pytest.mark.parametrize(("low", "high", "place"), [(1, 9, "within"), (5, 9, "below"), (1, 3.5, "above")])
def test_where_it_lies_to_what_the_logits_suggest(low, high, place):
    suggestion = replace(SUGGESTION, low=float(low), high=float(high))
    assert about_targets(replace(BASE, suggestion=suggestion))[-1] == (
        f"From the teacher's logits alone one would start at T = 3 and search {low} to {high:g}; T = 4 is {place} that."
    )
    same = replace(suggestion, temperature=4.0)
    assert about_targets(replace(BASE, suggestion=same))[-1].startswith("T = 4 is where the teacher's logits alone")


@pytest.mark.parametrize(
    ("share", "sentence"),
    [
        (0.93, "T = 4 wastes this teacher: 93% of the gradient tells apart classes that"),
        (explaining.WASTED, "T = 4 wastes this teacher: 50% of the gradient tells apart classes that"),
        (0.49, "At T = 4, 49% of the gradient tells apart classes that"),
        (explaining.NOTICED, "At T = 4, 10% of the gradient tells apart classes that"),
        (
            0.03,
            "At T = 4 the gradient goes where the teacher's mass is; only 3% of the gradient tells apart classes that",
        ),
    ],
)
def test_a_gradient_on_the_tail(share, sentence):
    told = about_gradient(with_row(tail_gradient=share))
    assert told[0] == f"{sentence} share less than 1% of the mass at T = 1."


def test_a_high_temperature_wastes_a_teacher_with_noise_in_its_tail():
    """100 classes, one that is sure and one beside it, the rest noise of the size of the logits."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 100, (400,), generator=generator)
    v = 3 * torch.randn(400, 100, generator=generator)
    v[torch.arange(400), labels] = 15.0
    v[torch.arange(400), (labels + 1) % 100] = 13.0
    told = explain(v, labels, temperature=20.0).sections[1].sentences[0]
    assert told.startswith("T = 20 wastes this teacher: ")
    assert explain(v, labels, temperature=1.5).sections[1].sentences[0].startswith("At T = 1.5 the gradient goes where")


def test_what_else_is_said_of_the_gradient():
    told = about_gradient(
        with_row(
            tail_gradient=0.0, target_gradient=0.62, gradient_norm=0.6, gradient_norm_unscaled=0.0375,
            limit_distance=0.5, hard_gradient=0.03,
        )
    )  # fmt: skip
    one = BASE.at(1.0).gradient_norm_unscaled
    assert told[1:] == [
        "This is for a student that knows nothing yet and says 1/C, since none was given.",
        "62% of the gradient is on the label and 38% on the other classes.",
        f"From T = 1 to T = 4 its norm goes from {one:.3g} to 0.0375 without T², and to 0.6 with it.",
        "It is 50% away from that of matching logits, its limit at high T: T still decides what is learnt.",
        "At α = 0.9 the hard loss makes 3% of the gradient.",
    ]
    assert "changes nothing any more" in about_gradient(with_row(limit_distance=0.099))[4]
    assert "still decides" in about_gradient(with_row(limit_distance=explaining.MATCHING))[4]
    assert about_gradient(with_row(hard_gradient=0.995))[-1] == (
        "The divergence has 0.50% of the gradient on the student's logits at T = 4: raise alpha, or do without it."
    )
    assert "hard loss has" in about_gradient(with_row(hard_gradient=0.001))[-1]
    alone = replace(with_row(hard_gradient=0.0), alpha=1.0)
    assert about_gradient(alone)[-1] == "At α = 1 the hard loss makes 0% of the gradient."
    given = replace(with_row(hard_gradient=None), student="given", fits=())
    assert not [s for s in about_gradient(given) if "knows nothing" in s or "hard loss" in s]
    assert "on the top class" in about_gradient(given)[1]


@pytest.mark.parametrize(
    ("confidence", "words"),
    [
        (0.95, "overconfident: it is right in 90% of the rows and gives its choice 95% on average"),
        (0.915, "about as sure as it should be: it is right in 90% of the rows and gives its choice 92% on average"),
        (0.85, "less sure than it could be: it is right in 90% of the rows and gives its choice 85% on average"),
    ],
)
def test_calibration(confidence, words):
    student = Fit("student", 1.0, 0.9, confidence, 0.3, 0.05, ())
    calibration = replace(BASE.suggestion.calibration, temperature=1.8, ece_before=0.09, ece_after=0.02)
    told = about_fits(replace(BASE, fits=(student,), suggestion=replace(SUGGESTION, calibration=calibration)))
    assert told == [
        "The teacher is overconfident: its probabilities fit the labels best at T = 1.8 (calibration error 0.090, there"
        " 0.020).",
        f"The student at T = 1 is {words} (calibration error 0.050).",
    ]
    assert about_fits(explain(TEACHER)) == []


@pytest.mark.parametrize(
    ("correlation", "words"),
    [(0.7, "It has learnt"), (0.69, "It has half learnt"), (0.3, "It has half learnt"), (0.29, "It has not learnt")],
)
def test_fidelity(correlation, words):
    found = replace(with_row(kl=0.02), fidelity=Fidelity(0.97, 0.05, correlation))
    assert about_fidelity(found) == [
        "The student has the teacher's top class in 97% of the rows and is 0.05 nats from it at T = 1, and 0.02 at T ="
        " 4.",
        f"{words} the order of the other classes (rank correlation {correlation:.2f}).",
    ]
    assert len(about_fidelity(replace(found, fidelity=Fidelity(0.97, 0.05, None)))) == 1
    assert about_fidelity(BASE) == []


def test_classes():
    def views(*soft, rows=50):
        return tuple(OfClass(f"c{i}", rows, 1.0, x, 0.1, 0.3, "ORG", 0.66) for i, x in enumerate(soft))

    assert about_classes(replace(BASE, by_class=views(2.1, 1.2, 1.5))) == [
        "The softest class is c0, with 2.10 effective classes at T = 4, in 66% of its rows beside ORG; the sharpest is"
        " c1, with 1.20.",
        "One temperature is not the same to all classes: the policy softness makes each row as soft.",
    ]
    assert about_classes(replace(BASE, by_class=views(1.5, 1.0))) == [
        "All classes are about as soft, with 1.00 (c1) to 1.50 (c0) effective classes at T = 4."
    ]
    assert about_classes(replace(BASE, by_class=views(2.1, 1.2, rows=9))) == []


def test_examples_are_read_out():
    sure = (Said("LOC", 0.71), Said("ORG", 0.24), Said("PER", 0.009))
    soft = (Said("LOC", 0.4), Said("ORG", 0.31), Said("PER", 0.2), Said("O", 0.09))
    row = Example(3, "dev-3 'Paris'", "LOC", 0.4, sure, soft)
    assert about_examples(replace(BASE, most_changed=(row,), least_sure=(replace(row, label=None),))) == [
        "Row dev-3 'Paris' (label LOC) moves most: the teacher says 0.71 LOC, 0.24 ORG at T = 1 and 0.40 LOC, 0.31 ORG,"
        " 0.20 PER at T = 4.",
        "Row dev-3 'Paris' is where it is least sure: the teacher says 0.71 LOC, 0.24 ORG.",
    ]
    assert len(about_examples(replace(BASE, most_changed=()))) == 1
