"""The whole of an explanation: who counts, classes, examples, JSON, Markdown; and what is refused."""

import json
import math
from dataclasses import asdict

import pytest
import torch

from setpoint import Explanation, effective_classes, explain, suggest
from setpoint.errors import TargetError, TemperatureError
from setpoint.insight.explanation import Section
from setpoint.insight.markdown import to_markdown
from setpoint.insight.tables import tables

INF = math.inf
NAMES = ("O", "LOC", "ORG", "PER")
GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.randint(0, 4, (60,), generator=GENERATOR)
TEACHER = 2 * torch.randn(60, 4, generator=GENERATOR)
TEACHER[torch.arange(60), LABELS] += 4
STUDENT = TEACHER / 2 + torch.randn(60, 4, generator=GENERATOR)


def test_it_is_about_the_temperature_that_is_asked_for():
    found = explain(TEACHER, LABELS, STUDENT, temperature=3.3, alpha=0.4)
    assert isinstance(found, Explanation)
    assert (found.temperature, found.alpha, found.rows, found.classes) == (3.3, 0.4, 60, 4)
    assert found.suggestion == suggest(TEACHER, LABELS)
    marked = {1.0, 3.3, found.suggestion.temperature, found.suggestion.calibration.temperature}
    assert marked <= {at.temperature for at in found.over_temperature}
    assert found.at(3.3).effective_classes == pytest.approx(float(effective_classes(TEACHER, 3.3).mean()))
    assert [(fit.model, fit.temperature) for fit in found.fits] == [
        ("teacher", 1.0),
        ("teacher", found.suggestion.calibration.temperature),
        ("student", 1.0),
    ]
    assert [section.title for section in found.sections] == [
        "The targets", "The gradient", "Calibration", "Student and teacher", "Class by class", "Examples",
    ]  # fmt: skip


def test_without_a_temperature_it_is_the_suggested_one():
    found = explain(TEACHER)
    assert found.temperature == suggest(TEACHER).temperature
    assert (found.student, found.fits, found.fidelity) == ("uniform", (), None)
    assert [section.title for section in found.sections] == [
        "The targets", "The gradient", "Class by class", "Examples",
    ]  # fmt: skip


def test_json_is_what_asdict_makes_of_it():
    for found in (explain(TEACHER, LABELS, STUDENT), explain(TEACHER), explain(100 * TEACHER, temperature=0.01)):
        text = json.dumps(asdict(found), allow_nan=False)
        assert json.loads(text)["over_temperature"][0].keys() == asdict(found.over_temperature[0]).keys()


def test_rows_without_a_label_do_not_count_at_all():
    labels = LABELS.clone()
    labels[[0, 7, 59]] = -100
    kept = labels != -100
    teacher = TEACHER.clone()
    names = [f"row {i}" for i in range(60)]
    found = explain(teacher, labels, STUDENT, 3.0, row_names=names)
    left = [name for name, keep in zip(names, kept.tolist(), strict=True) if keep]
    assert found == explain(teacher[kept], LABELS[kept], STUDENT[kept], 3.0, row_names=left)
    assert found.rows == 57


def test_a_large_negative_logit_is_a_mask_as_minus_infinity_is():
    labels, masks = torch.where(LABELS == 3, 0, LABELS), (-INF, -1e9)
    one, other = (
        explain(*(torch.cat([x[:, :3], torch.full((60, 1), m)], -1) for x in (TEACHER,)), labels, temperature=2.0)
        for m in masks
    )
    assert one == other
    assert [view.name for view in one.by_class] == ["0", "1", "2"]


def test_class_by_class():
    found = explain(TEACHER, LABELS, temperature=4.0, class_names=NAMES)
    assert [view.name for view in found.by_class] == list(NAMES)
    for k, view in enumerate(found.by_class):
        own = TEACHER[k == LABELS]
        assert view.rows == len(own)
        for at, classes, mass in (
            (1.0, view.effective_classes_at_one, view.dark_mass_at_one),
            (4.0, view.effective_classes, view.dark_mass),
        ):
            assert classes == pytest.approx(float(effective_classes(own, at).mean()), rel=1e-5)
            assert mass == pytest.approx(float(1 - torch.softmax(own / at, -1).amax(-1).mean()), rel=1e-4)
        beside = [max((v, j) for j, v in enumerate(row) if j != k)[1] for row in own.tolist()]
        most = max(set(beside), key=lambda j: (beside.count(j), -j))
        assert (view.beside, view.beside_share) == (NAMES[most], pytest.approx(beside.count(most) / len(own)))
    unlabelled = explain(TEACHER, temperature=4.0, class_names=NAMES)
    assert [view.rows for view in unlabelled.by_class] == torch.bincount(TEACHER.argmax(-1), minlength=4).tolist()


def test_the_examples_are_the_rows_that_move_most_and_those_the_teacher_is_least_sure_of():
    found = explain(TEACHER, LABELS, temperature=4.0, class_names=NAMES)
    one, four = torch.softmax(TEACHER, -1), torch.softmax(TEACHER / 4, -1)
    moved = 0.5 * (one - four).abs().sum(-1)
    assert [example.row for example in found.most_changed] == moved.argsort(descending=True)[:5].tolist()
    assert [example.row for example in found.least_sure] == one.amax(-1).argsort()[:5].tolist()
    for example in found.most_changed + found.least_sure:
        assert example.moved == pytest.approx(float(moved[example.row]), rel=1e-5)
        assert (example.name, example.label) == (str(example.row), NAMES[LABELS[example.row]])
        for said, p in ((example.at_one, one[example.row]), (example.at_temperature, four[example.row])):
            order = p.argsort(descending=True).tolist()
            assert [each.name for each in said] == [NAMES[k] for k in order]
            assert [each.probability for each in said] == pytest.approx(p[order].tolist(), rel=1e-5)
    assert explain(TEACHER, temperature=1.0).most_changed == ()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"temperature": 0.0}, "temperature is 0.0: give a number from 0.001 to 10000"),
        ({"temperature": math.nan}, "temperature is nan: give a number from 0.001 to 10000"),
        ({"alpha": 1.5}, "alpha is 1.5: give a number in [0, 1]"),
        ({"class_names": ["a"]}, "class_names are 1 for logits [60, 4]: give 4 names"),
        ({"row_names": ["a"]}, "row_names are 1 for logits [60, 4]: give 60 names"),
        ({"labels": LABELS[:3]}, "labels have the shape [3] where the logits have 60 rows: give one label a row"),
        (
            {"student_logits": STUDENT[:5]},
            "student_logits has the shape [5, 4] where the teacher's has [60, 4]: give both the same rows and classes",
        ),
        (
            {"student_logits": torch.softmax(STUDENT, -1)},
            "student_logits holds probabilities, each row from 0 to 1 with sum 1: take their logarithm",
        ),
        (
            {"student_logits": STUDENT.index_put((torch.tensor([3]), torch.tensor([1])), torch.tensor(-INF))},
            "student_logits masks a class in row 3 that the teacher's do not: mask it in both",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(arguments, sentence):
    with pytest.raises((TargetError, TemperatureError)) as error:
        explain(TEACHER, **arguments)
    assert str(error.value) == sentence


def test_odd_logits_are_explained_too():
    """One row, two classes, all alike, a teacher that is always right."""
    alike = explain(torch.zeros(3, 5), temperature=2.0)
    assert alike.at(2.0).target_gradient is None
    assert alike.sections[1] == Section(
        "The gradient",
        ("The student's logits are the teacher's up to a constant of each row: the soft loss has no gradient.",),
    )
    assert explain(torch.tensor([[3.0, 0.0]])).rows == 1
    always = explain(20 * torch.eye(4).repeat(30, 1), torch.arange(4).repeat(30), temperature=2.0)
    assert [fit.temperature for fit in always.fits] == [1.0]  # no finite T calibrates it


def test_the_page_has_title_sentences_and_tables():
    found = explain(TEACHER, LABELS, STUDENT, 4.0, class_names=("O", "<b>", "a|b", "`x`"))
    page = to_markdown("conll [x]: why", found)
    lines = page.splitlines()
    assert lines[0] == "# conll \\[x]: why"
    for section in found.sections:
        assert f"## {section.title}" in lines
    whole = tables(found)
    assert [f"### {title}" for title in whole] == [line for line in lines if line.startswith("### ")]
    assert "<b>" not in page.replace("\\<b>", "")
    for block in page.split("\n\n"):
        if block.startswith("|"):
            widths = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(widths) == 1
    assert found.sections[0].sentences[0] in page
    (explained,) = [row for row in whole["Targets over T"] if row[""] == "explained"]
    at = found.at(4.0)
    assert (explained["T"], explained["classes"], explained["ECE"]) == (
        "4",
        f"{at.effective_classes:.2f}",
        f"{at.ece:.3f}",
    )
    assert "KL" not in tables(explain(TEACHER, LABELS))["Targets over T"][0]
    assert len(whole["Classes"]) == 4
    shown = [row["T"] for row in whole["Targets over T"]]
    assert "1.41" not in shown
    assert {"0.25", "1", "4", "32"} <= set(shown)
