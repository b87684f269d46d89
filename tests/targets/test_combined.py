import math

import pytest
import torch

from reference import distillation as ref
from setpoint.errors import TargetError
from setpoint.targets.combined import CalibratedTargets, TeacherEnsemble

GENERATOR = torch.Generator().manual_seed(0)


class Says:
    """A source that gives the same logits for every batch."""

    def __init__(self, logits, labels=("a", "b", "c")):
        self.logits, self.labels = torch.as_tensor(logits), labels

    def __call__(self, batch):
        return self.logits


A, B = (3 * torch.randn(4, 3, generator=GENERATOR) for _ in range(2))


def probabilities(source):
    return source({}).double().softmax(-1).tolist()


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, 3.0], [0.2, 0.7]])
def test_the_arithmetic_and_the_geometric_mean(weights):
    u, w = (x / sum(weights) for x in weights)
    arithmetic = TeacherEnsemble([Says(A), Says(B)], weights)
    geometric = TeacherEnsemble([Says(A), Says(B)], weights, combine="logits")
    for row, (a, b) in enumerate(zip(A.tolist(), B.tolist(), strict=True)):
        p, q = ref.softmax(a), ref.softmax(b)
        assert probabilities(arithmetic)[row] == pytest.approx([u * x + w * y for x, y in zip(p, q, strict=True)], 1e-5)
        powers = [x**u * y**w for x, y in zip(p, q, strict=True)]
        assert probabilities(geometric)[row] == pytest.approx([x / sum(powers) for x in powers], 1e-5)


def test_the_surer_teacher_speaks_louder_row_by_row():
    both = TeacherEnsemble([Says(A), Says(B)], by_confidence=True)
    for row, (a, b) in enumerate(zip(A.tolist(), B.tolist(), strict=True)):
        p, q = ref.softmax(a), ref.softmax(b)
        u, w = (math.exp(-ref.entropy(x)) for x in (p, q))
        expected = [(u * x + w * y) / (u + w) for x, y in zip(p, q, strict=True)]
        assert probabilities(both)[row] == pytest.approx(expected, 1e-5)


def test_each_teacher_has_its_own_temperature():
    calibrated = CalibratedTargets(Says(A), 2.5)
    assert calibrated.labels == ("a", "b", "c")
    torch.testing.assert_close(calibrated({}), A / 2.5)
    both = TeacherEnsemble([calibrated, Says(B)])
    for row, (a, b) in enumerate(zip(A.tolist(), B.tolist(), strict=True)):
        p, q = ref.softmax(a, 2.5), ref.softmax(b)
        assert probabilities(both)[row] == pytest.approx([(x + y) / 2 for x, y in zip(p, q, strict=True)], 1e-5)


def test_one_teacher_alone_says_what_it_says():
    for combine in ("probabilities", "logits"):
        alone = TeacherEnsemble([Says(A)], combine=combine)
        torch.testing.assert_close(alone({}).softmax(-1), A.softmax(-1))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([],), "an ensemble of no teachers is given: give one at least"),
        (([Says(A)], [1.0, 2.0]), r"weights are \[1.0, 2.0\] for 1 teachers: give each a number above 0"),
        (([Says(A)], [0.0]), r"weights are \[0.0\] for 1 teachers: give each a number above 0"),
        (([Says(A)], None, "votes"), "combine is 'votes': give one of probabilities, logits"),
        (
            ([Says(A), Says(B, ("b", "a", "c"))],),
            r"the teachers' labels differ: \['a', 'b', 'c'\] and \['b', 'a', 'c'\]",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, sentence):
    with pytest.raises(TargetError, match=sentence):
        TeacherEnsemble(*arguments)


def test_teachers_that_see_other_rows_are_refused():
    with pytest.raises(TargetError, match="the teachers give different rows for a batch"):
        TeacherEnsemble([Says(A), Says(B[:2])])({})
