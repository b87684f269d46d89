import copy
import math

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from reference import distillation as ref
from setpoint import Constant, DistillationObjective, HardTargets, Linear, TemperaturePolicy, Temperatures
from setpoint.errors import TargetError, TemperatureError
from setpoint.maths.divergences import DIVERGENCES

GENERATOR = torch.Generator().manual_seed(0)


def batch(n=6, classes=5):
    z, v = (torch.randn(n, classes, dtype=torch.float64, generator=GENERATOR) * 2 for _ in range(2))
    labels = torch.randint(0, classes, (n,), generator=GENERATOR)
    return z.requires_grad_(), v, labels


@given(st.floats(0.3, 10), st.floats(0.3, 10), st.floats(0, 1), st.lists(st.booleans(), min_size=6, max_size=6))
def test_the_loss_is_the_loop_over_rows(t_teacher, t_student, alpha, keep):
    if not any(keep):
        keep[0] = True
    z, v, labels = batch()
    objective = DistillationObjective(Constant(teacher=t_teacher, student=t_student), alpha=alpha)
    loss = objective(student_logits=z, teacher_logits=v, labels=labels, mask=torch.tensor(keep))
    expected = ref.distillation_loss(z.tolist(), v.tolist(), labels.tolist(), keep, t_teacher, t_student, alpha)
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_that_of_the_formula():
    z, v, labels = batch()
    t, alpha = 4.0, 0.7
    DistillationObjective(t, alpha=alpha)(student_logits=z, teacher_logits=v, labels=labels).total.backward()
    expected = []
    for row, teacher, y in zip(z.tolist(), v.tolist(), labels.tolist(), strict=True):
        q, p, hard = ref.softmax(row, t), ref.softmax(teacher, t), ref.softmax(row)
        expected.append(
            [
                (alpha * t * t * (b - a) / t + (1 - alpha) * (h - (k == y))) / len(z)
                for k, (a, b, h) in enumerate(zip(p, q, hard, strict=True))
            ]
        )
    torch.testing.assert_close(z.grad, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("divergence", sorted(set(DIVERGENCES) - {"soft_cross_entropy", "total_variation"}))
@given(t=st.floats(0.2, 30))
def test_a_student_that_equals_its_teacher_has_nothing_to_learn_at_any_temperature(divergence, t):
    _, v, _ = batch()
    z = (v + 3.0).requires_grad_()
    loss = DistillationObjective(t, divergence, alpha=1.0)(student_logits=z, teacher_logits=v)
    loss.total.backward()
    assert abs(float(loss.total.detach())) < 1e-9
    assert float(z.grad.abs().max()) < 1e-9


def test_teacher_logits_get_no_gradient():
    z, v, labels = batch()
    v.requires_grad_()
    for hard in ("labels", "teacher_argmax", "teacher_sample"):
        DistillationObjective(hard=hard)(student_logits=z, teacher_logits=v, labels=labels).total.backward()
    assert v.grad is None


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8])
def test_an_attention_mask_of_integers_is_a_mask(dtype):
    z, v, labels = batch()
    keep = torch.tensor([1, 1, 0, 0, 1, 0], dtype=dtype)
    result = DistillationObjective(3.0)(student_logits=z, teacher_logits=v, labels=labels, mask=keep).total
    expected = ref.distillation_loss(z.tolist(), v.tolist(), labels.tolist(), keep.tolist(), 3.0, 3.0, 0.9)
    assert float(result.detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mask", [torch.ones(6), torch.tensor([0, 1, 2, 3, 4, 5]), torch.full((6,), -1)])
def test_a_mask_that_is_none_is_refused(mask, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in production, where no shapes are checked
    z, v, labels = batch()
    with pytest.raises(TargetError) as error:
        DistillationObjective()(student_logits=z, teacher_logits=v, labels=labels, mask=mask)
    assert str(error.value) == "mask is neither bool nor integers 0 and 1: give True or 1 where a row counts"


@pytest.mark.parametrize("name", ["mask", "labels"])
def test_what_has_other_rows_than_the_logits_is_refused(name, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    z, v, labels = batch()
    given = {"mask": torch.ones(6, dtype=torch.bool), "labels": labels}
    given[name] = given[name].reshape(2, 3)
    with pytest.raises(TargetError) as error:
        DistillationObjective()(student_logits=z, teacher_logits=v, **given)
    assert str(error.value) == (
        f"{name} has shape (2, 3), student_logits (6, 5): give one entry for each row of the logits"
    )


def test_labels_outside_the_mask_are_not_read():
    z, v, labels = batch()
    mask = torch.tensor([True, False, True, True, False, True])
    objective = DistillationObjective(3.0, alpha=0.5)
    expected = objective(student_logits=z, teacher_logits=v, labels=labels, mask=mask).total
    labels[~mask] = -1
    assert objective(student_logits=z, teacher_logits=v, labels=labels, mask=mask).total == expected
    labels[0] = -1
    with pytest.raises(TargetError, match="label -1 is none of 5 classes: mend the labels"):
        objective(student_logits=z, teacher_logits=v, labels=labels, mask=mask)


@pytest.mark.parametrize(
    ("alpha", "hard", "needed"),
    [
        (0.0, "labels", False),
        (0.0, "teacher_argmax", True),
        (0.0, "teacher_sample", True),
        (0.5, "labels", True),
        (1.0, "labels", True),
    ],
)
def test_when_a_teacher_is_needed(alpha, hard, needed):
    z, _, labels = batch()
    objective = DistillationObjective(alpha=alpha, hard=hard)
    assert objective.needs_teacher is needed
    if needed:
        with pytest.raises(TargetError, match="teacher_logits are missing"):
            objective(student_logits=z, labels=labels)
    else:
        objective(student_logits=z, labels=labels)


@pytest.mark.parametrize("divergence", list(DIVERGENCES))
def test_masked_rows_contribute_exactly_nothing(divergence):
    z, v, labels = batch()
    mask = torch.tensor([True, False, True, True, False, True])
    objective = DistillationObjective(3.0, divergence, alpha=0.5)
    sliced = objective(student_logits=z[mask], teacher_logits=v[mask], labels=labels[mask]).total
    (expected,) = torch.autograd.grad(sliced, z)
    poisoned_z, poisoned_v = z.detach().clone(), v.clone()
    poisoned_z[~mask], poisoned_v[~mask] = math.nan, math.inf
    poisoned_z.requires_grad_()
    loss = objective(student_logits=poisoned_z, teacher_logits=poisoned_v, labels=labels, mask=mask).total
    loss.backward()
    assert float(loss.detach()) == float(sliced.detach())
    assert poisoned_z.grad[~mask].abs().sum() == 0.0
    torch.testing.assert_close(poisoned_z.grad, expected)


def test_rows_without_a_label_are_no_rows_unless_the_mask_says_so():
    z, v, labels = batch()
    labels[2:4] = -100
    objective = DistillationObjective(2.0, alpha=0.5)
    default = objective(student_logits=z, teacher_logits=v, labels=labels)
    kept = [0, 1, 4, 5]
    sliced = objective(student_logits=z[kept], teacher_logits=v[kept], labels=labels[kept])
    assert float(default.total.detach()) == pytest.approx(float(sliced.total.detach()))
    everything = objective(student_logits=z, teacher_logits=v, labels=labels, mask=torch.ones(6, dtype=torch.bool))
    unlabelled = DistillationObjective(2.0, alpha=1.0)(student_logits=z, teacher_logits=v)
    assert float(everything.terms["divergence"]) == pytest.approx(float(unlabelled.terms["divergence"]))
    # Rows without a label add nothing to the hard loss, and count: else micro-batches would not sum to the whole.
    assert float(everything.terms["hard"]) == pytest.approx(float(sliced.terms["hard"]) * 4 / 6)


def test_one_batch_equals_its_ragged_parts():
    torch.manual_seed(0)
    z, v = torch.randn(32, 7, 5, requires_grad=True), torch.randn(32, 7, 5)
    labels = torch.randint(0, 5, (32, 7))
    labels[torch.rand(32, 7) < torch.linspace(0, 0.95, 32)[:, None]] = -100
    objective = DistillationObjective(4.0, alpha=0.8)
    whole = objective(student_logits=z, teacher_logits=v, labels=labels).total
    (expected,) = torch.autograd.grad(whole, z)
    count = (labels != -100).sum()
    parts = [
        objective(student_logits=a, teacher_logits=b, labels=c, num_valid=count).total
        for a, b, c in zip(z.split(8), v.split(8), labels.split(8), strict=True)
    ]
    (gradient,) = torch.autograd.grad(sum(parts), z)
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()), abs=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6)


def test_a_batch_without_a_valid_row_is_a_loss_of_nothing():
    z, v, labels = batch()
    loss = DistillationObjective(2.0)(student_logits=z, teacher_logits=v, labels=torch.full_like(labels, -100)).total
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(z.grad.abs().sum()) == 0.0


class ByRow(TemperaturePolicy):
    """A temperature for each row, known to the test."""

    def __init__(self, temperatures):
        super().__init__()
        self.temperatures = temperatures

    def forward(self, teacher_logits, student_logits, labels=None, progress=0.0):
        t = self.temperatures
        return Temperatures(t[:, None], t[:, None], t**2)


def test_the_scale_of_a_row_is_applied_before_the_mean():
    z, v, _ = batch(2)
    t = torch.tensor([1.0, 8.0], dtype=torch.float64)
    loss = DistillationObjective(ByRow(t), alpha=1.0)(student_logits=z, teacher_logits=v)
    rows = [
        float(s) ** 2 * ref.kl(ref.softmax(b, float(s)), ref.softmax(a, float(s)))
        for a, b, s in zip(z.tolist(), v.tolist(), t, strict=True)
    ]
    assert float(loss.total.detach()) == pytest.approx(sum(rows) / 2, rel=1e-6)


def test_progress_reaches_the_policy():
    z, v, _ = batch()
    objective = DistillationObjective(Linear(8.0, 2.0), alpha=1.0)
    for progress, t in ((0.0, 8.0), (0.5, 5.0), (1.0, 2.0)):
        loss = objective(student_logits=z, teacher_logits=v, progress=progress)
        fixed = DistillationObjective(t, alpha=1.0)(student_logits=z, teacher_logits=v)
        assert float(loss.total.detach()) == pytest.approx(float(fixed.total.detach()))
        assert float(loss.temperatures.teacher) == t


def test_hard_targets_from_the_teacher():
    z, v, labels = batch()
    argmax = DistillationObjective(alpha=0.0, hard="teacher_argmax")(student_logits=z, teacher_logits=v)
    expected = torch.nn.functional.cross_entropy(z, v.argmax(-1))
    assert float(argmax.total.detach()) == pytest.approx(float(expected.detach()))
    one = DistillationObjective(alpha=0.0, hard=HardTargets("teacher_sample", top_k=1))
    assert float(one(student_logits=z, teacher_logits=v).total.detach()) == pytest.approx(float(expected.detach()))
    smooth = DistillationObjective(alpha=0.0, hard=HardTargets(label_smoothing=0.2))(student_logits=z, labels=labels)
    target = 0.8 * torch.nn.functional.one_hot(labels, 5) + 0.2 / 5
    by_hand = -(target * torch.log_softmax(z, -1)).sum(-1).mean()
    assert float(smooth.total.detach()) == pytest.approx(float(by_hand.detach()))


def test_sampled_labels_follow_the_tempered_teacher():
    torch.manual_seed(0)
    v = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(20_000, 4)
    objective = DistillationObjective(2.0, alpha=0.0, hard=HardTargets("teacher_sample", top_k=3))
    # A student whose cross-entropy names the class that was drawn: the mean loss is Σ frequency·loss.
    z = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(20_000, 4)
    loss = float(objective(student_logits=z, teacher_logits=v).total)
    p = ref.softmax([2.0, 1.0, 0.0], 2.0)
    costs = [-math.log(x) for x in ref.softmax([0.0, 1.0, 2.0, 3.0])[:3]]
    assert loss == pytest.approx(sum(a * b for a, b in zip(p, costs, strict=True)), abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "call", "message"),
    [
        ({"alpha": 1.5}, {}, "alpha is 1.5: give a number in [0, 1]"),
        ({"alpha": math.nan}, {}, "alpha is nan: give a number in [0, 1]"),
        ({"divergence": "kl"}, {}, "divergence 'kl' is unknown: give one of forward_kl, reverse_kl, jensen_shannon, "),
        ({"hard": "soft"}, {}, "hard targets 'soft' are unknown: give one of labels, teacher_argmax, teacher_sample"),
        ({}, {"teacher_logits": None}, "teacher_logits are missing: give them, or set alpha to 0 with hard='labels'"),
        ({}, {"labels": None}, "labels are missing while alpha is below 1: give them, set alpha=1, or hard="),
        ({}, {"teacher_logits": torch.zeros(6, 4)}, "teacher_logits have shape (6, 4), student_logits (6, 5): "),
        ({}, {"labels": torch.full((6,), 5)}, "label 5 is none of 5 classes: mend the labels"),
    ],
)
def test_what_is_refused(arguments, call, message):
    z, v, labels = batch()
    with pytest.raises(TargetError) as error:
        DistillationObjective(**arguments)(**{"student_logits": z, "teacher_logits": v, "labels": labels} | call)
    assert str(error.value).startswith(message)


def test_what_hard_targets_refuse():
    with pytest.raises(TargetError, match="label_smoothing is 1.0"):
        HardTargets(label_smoothing=1.0)
    with pytest.raises(TargetError, match="top_k is 3 with kind 'labels'"):
        HardTargets(top_k=3)
    with pytest.raises(TemperatureError, match="temperature is 0.0"):
        DistillationObjective(0.0)


def test_shapes_are_checked_under_test():
    z, v, _ = batch()
    with pytest.raises(TypeCheckError):
        DistillationObjective(alpha=1.0)(student_logits=z, teacher_logits=v, mask=torch.ones(5, dtype=torch.bool))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2), (torch.float32, 1e-6)])
def test_half_precision_logits_give_a_float32_loss(dtype, tolerance):
    z, v, labels = batch(64, 10)
    exact = DistillationObjective(2.0)(student_logits=z, teacher_logits=v, labels=labels).total
    half = DistillationObjective(2.0)(student_logits=z.to(dtype), teacher_logits=v.to(dtype), labels=labels).total
    assert half.dtype == torch.float32
    assert float(half.detach()) == pytest.approx(float(exact.detach()), rel=tolerance)


def test_an_objective_can_be_copied():
    z, v, labels = batch()
    objective = DistillationObjective(3.0, "dkd")
    again = copy.deepcopy(objective)(student_logits=z, teacher_logits=v, labels=labels)
    assert again.total == objective(student_logits=z, teacher_logits=v, labels=labels).total
