import math

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint import Constant, DistillationObjective, HardTargets, TemperaturePolicy, Temperatures
from setpoint.errors import LossError, TargetError
from setpoint.maths.divergences import DIVERGENCES
from setpoint.maths.tempering import log_temper

ONE = Temperatures(torch.tensor(1.0), torch.tensor(1.0), torch.tensor(1.0))
INF = math.inf


def at(t, hard=None):
    t = torch.tensor(t)
    return Temperatures(t, t, t * t, None if hard is None else torch.tensor(hard))


def batch(rows=6, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z, v = (torch.randn(rows, classes, dtype=torch.float64, generator=generator) * 2 for _ in range(2))
    return z, v, torch.randint(0, classes, (rows,), generator=generator)


def costs(row):
    """The cross-entropy of each class, by the definition."""
    top = max(row)
    total = top + math.log(math.fsum(math.exp(x - top) for x in row))
    return [total - x for x in row]


def cost_of(z, chosen, smoothing=0.0):
    """(1 − ε)·CE + ε·mean of CE over all classes; 0 for a row without a target."""
    rows = []
    for row, y in zip(z.tolist(), chosen, strict=True):
        each = costs(row)
        rows.append((1 - smoothing) * each[y] + smoothing * math.fsum(each) / len(each) if y >= 0 else 0.0)
    return rows


def tops(v):
    return [row.index(max(row)) for row in v.tolist()]


# ---------------------------------------------------------------------------------------------------- kinds


def test_labels_are_the_default_and_need_no_teacher():
    z, _, labels = batch()
    hard = HardTargets()
    assert (hard.kind, hard.needs_labels) == ("labels", True)
    assert hard.loss(z, None, labels, ONE).tolist() == pytest.approx(cost_of(z, labels.tolist()))


def test_a_row_without_a_label_loses_nothing():
    z, v, labels = batch()
    labels[[1, 4]] = -100
    z.requires_grad_()
    loss = HardTargets().loss(z, v, labels, ONE)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx(cost_of(z.detach(), labels.tolist()))
    assert (z.grad[[1, 4]] == 0).all()


def test_any_negative_label_is_none():
    """``labels: [R], negative where a row has none``."""
    z, v, labels = batch()
    labels[[1, 4]] = -1
    assert HardTargets().loss(z, v, labels, ONE).tolist() == pytest.approx(cost_of(z, labels.tolist()))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32])
def test_labels_of_any_integer_type(dtype):
    z, v, labels = batch()
    assert HardTargets().loss(z, v, labels.to(dtype), ONE).tolist() == pytest.approx(cost_of(z, labels.tolist()))


def test_the_top_class_of_the_teacher_needs_no_labels():
    z, v, labels = batch()
    hard = HardTargets("teacher_argmax")
    assert not hard.needs_labels
    for given_labels in (None, labels):
        assert hard.loss(z, v, given_labels, at(3.0)).tolist() == pytest.approx(cost_of(z, tops(v)))


def test_a_sample_of_one_class_is_the_top_class():
    z, v, _ = batch()
    assert not HardTargets("teacher_sample").needs_labels
    loss = HardTargets("teacher_sample", top_k=1).loss(z, v, None, at(50.0))
    assert loss.tolist() == pytest.approx(cost_of(z, tops(v)))


def test_half_precision_logits_give_a_float32_loss():
    z, v, labels = batch()
    for kind in ("labels", "teacher_argmax", "teacher_sample"):
        loss = HardTargets(kind).loss(z.bfloat16(), v.bfloat16(), labels, ONE)
        assert loss.dtype == torch.float32


def test_the_hard_temperature_divides_the_student_alone():
    z, v, labels = batch()
    for kind, chosen in (("labels", labels.tolist()), ("teacher_argmax", tops(v))):
        loss = HardTargets(kind).loss(z, v, labels, at(4.0, hard=2.0))
        assert loss.tolist() == pytest.approx(cost_of(z / 2, chosen))
        assert HardTargets(kind).loss(z, v, labels, at(4.0)).tolist() == pytest.approx(cost_of(z, chosen))


def test_a_hard_temperature_for_each_row():
    z, v, labels = batch(2)
    each = torch.tensor([[2.0], [5.0]])
    loss = HardTargets().loss(z, v, labels, Temperatures(each, each, each[:, 0], hard=each))
    assert loss.tolist() == pytest.approx(cost_of(z / each, labels.tolist()))


# ---------------------------------------------------------------------------------------------------- sampling


def drawn(hard, teacher, temperatures, count=20_000):
    """How often each class is drawn; a student whose loss names the class makes it visible."""
    classes = len(teacher)
    z = torch.arange(classes, dtype=torch.float64).expand(count, classes)
    loss = hard.loss(z, torch.tensor(teacher).expand(count, classes), None, temperatures)
    each = torch.tensor(costs(z[0].tolist()), dtype=torch.float64)
    which = (loss[:, None] - each).abs().argmin(-1)
    torch.testing.assert_close(each[which], loss)
    return torch.bincount(which, minlength=classes).tolist()


def chi_square(counts, probabilities):
    total = sum(counts)
    return sum((c - total * p) ** 2 / (total * p) for c, p in zip(counts, probabilities, strict=True) if p > 0)


def tempered(logits, t):
    weights = [math.exp(v / t) for v in logits]
    return [w / math.fsum(weights) for w in weights]


LOGITS = [0.5, 2.0, -1.0, 1.0]


@pytest.mark.parametrize("t", [0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("top_k", [None, 2, 3, 4, 9])
def test_samples_follow_the_tempered_teacher_among_its_top_classes(top_k, t):
    torch.manual_seed(0)
    counts = drawn(HardTargets("teacher_sample", top_k=top_k), LOGITS, at(t))
    kept = sorted(range(4), key=lambda k: -LOGITS[k])[: top_k or 4]
    p = tempered([LOGITS[k] for k in kept], t)
    assert all(count == 0 for k, count in enumerate(counts) if k not in kept)
    assert chi_square([counts[k] for k in kept], p) < 16.3  # the 99.9 % quantile at 3 degrees of freedom


def test_the_temperature_of_the_teacher_is_the_one_sampled_at():
    """The student's is another matter."""
    torch.manual_seed(0)
    temperatures = Temperatures(torch.tensor(2.0), torch.tensor(9.0), torch.tensor(18.0))
    counts = drawn(HardTargets("teacher_sample"), LOGITS, temperatures)
    assert chi_square(counts, tempered(LOGITS, 2.0)) < 16.3
    assert chi_square(counts, tempered(LOGITS, 9.0)) > 100


def test_of_several_temperatures_the_first_is_sampled_at(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # log_temper's shapes do not allow for several
    torch.manual_seed(0)
    several = torch.tensor([2.0, 9.0]).reshape(2, 1, 1)
    counts = drawn(HardTargets("teacher_sample"), LOGITS, Temperatures(several, several, several[..., 0] ** 2))
    assert chi_square(counts, tempered(LOGITS, 2.0)) < 16.3


def test_a_temperature_for_each_row_is_that_rows():
    torch.manual_seed(0)
    each = torch.tensor([[1.0], [10.0]]).repeat_interleave(10_000, 0)
    z = torch.arange(4.0).expand(20_000, 4)
    loss = HardTargets("teacher_sample").loss(
        z, torch.tensor(LOGITS).expand(20_000, 4), None, Temperatures(each, each, each[:, 0])
    )
    for rows, t in ((loss[:10_000], 1.0), (loss[10_000:], 10.0)):
        counts = [int((rows - cost).abs().lt(1e-4).sum()) for cost in costs([0.0, 1.0, 2.0, 3.0])]
        assert chi_square(counts, tempered(LOGITS, t)) < 16.3


def test_masked_classes_are_never_drawn():
    torch.manual_seed(0)
    counts = drawn(HardTargets("teacher_sample", top_k=3), [0.0, -INF, 1.0, -INF], ONE, 2000)
    assert counts[1] == counts[3] == 0


def test_the_seed_decides_what_is_drawn():
    z, v, _ = batch(50)
    hard = HardTargets("teacher_sample")
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(hard.loss(z, v, None, at(5.0)))
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("hard", [HardTargets(), HardTargets("teacher_argmax"), HardTargets("teacher_sample", top_k=2)])
def test_no_rows_are_a_loss_of_no_rows(hard):
    nothing = torch.zeros(0, 3)
    assert hard.loss(nothing, nothing, torch.zeros(0, dtype=torch.long), ONE).shape == (0,)


# ---------------------------------------------------------------------------------------------------- smoothing


@settings(max_examples=30)
@given(st.floats(0, 0.99), st.integers(0, 1000), st.integers(1, 7), st.sampled_from(["labels", "teacher_argmax"]))
def test_label_smoothing_is_its_closed_form(smoothing, seed, classes, kind):
    """Against (1 − ε)·onehot + ε/C, the mean over all classes, the label's among them."""
    z, v, labels = batch(4, classes, seed)
    loss = HardTargets(kind, label_smoothing=smoothing).loss(z, v, labels, ONE)
    chosen = labels.tolist() if kind == "labels" else tops(v)
    assert loss.tolist() == pytest.approx(cost_of(z, chosen, smoothing), rel=1e-9, abs=1e-12)


def test_a_row_without_a_label_is_not_smoothed_either():
    z, v, labels = batch()
    labels[2] = -100
    loss = HardTargets(label_smoothing=0.3).loss(z, v, labels, ONE)
    assert loss.tolist() == pytest.approx(cost_of(z, labels.tolist(), 0.3))
    assert loss[2] == 0


def test_label_smoothing_spreads_over_the_classes_that_are_not_masked():
    """A class at −inf on both sides is as good as absent, here as in every divergence."""
    z, v, labels = batch(4, 5)
    expected = HardTargets(label_smoothing=0.2).loss(z[:, :4], v[:, :4], labels.clamp(max=3), ONE)
    z[:, 4] = v[:, 4] = -INF
    loss = HardTargets(label_smoothing=0.2).loss(z, v, labels.clamp(max=3), ONE)
    torch.testing.assert_close(loss, expected)


# ---------------------------------------------------------------------------------------------------- mixture


@settings(max_examples=30)
@given(st.floats(0, 1), st.floats(0, 0.9))
def test_a_mixture_is_the_cross_entropy_against_both(mixture, smoothing):
    z, v, labels = batch()
    hard = HardTargets("teacher_argmax", mixture=mixture, label_smoothing=smoothing)
    assert hard.needs_labels is (mixture < 1)
    a, b = cost_of(z, tops(v), smoothing), cost_of(z, labels.tolist(), smoothing)
    expected = [mixture * x + (1 - mixture) * y for x, y in zip(a, b, strict=True)]
    assert hard.loss(z, v, labels, ONE).tolist() == pytest.approx(expected)


def test_a_mixture_of_0_is_the_labels():
    z, v, labels = batch()
    hard = HardTargets("teacher_sample", mixture=0.0)
    assert hard.loss(z, v, labels, at(5.0)).tolist() == pytest.approx(cost_of(z, labels.tolist()))


def test_a_mixture_samples_one_share_alone():
    z, v, labels = batch()
    hard = HardTargets("teacher_sample", mixture=0.25, top_k=1)
    a, b = cost_of(z, tops(v)), cost_of(z, labels.tolist())
    expected = [0.25 * x + 0.75 * y for x, y in zip(a, b, strict=True)]
    assert hard.loss(z, v, labels, ONE).tolist() == pytest.approx(expected)


# ---------------------------------------------------------------------------------------------------- confidence

SURE, UNSURE = [5.0, 0.0, 0.0], [0.2, 0.1, 0.0]


def unsure_batch():
    """Rows the teacher is sure of, not sure of, and not sure of without a label."""
    z, _, _ = batch(3, 3)
    return z, torch.tensor([SURE, UNSURE, UNSURE], dtype=torch.float64), torch.tensor([2, 2, -100])


def test_an_unsure_row_falls_back_to_its_label_or_to_nothing():
    z, v, labels = unsure_batch()
    z.requires_grad_()
    loss = HardTargets("teacher_argmax", min_confidence=0.9).loss(z, v, labels, ONE)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx(cost_of(z.detach(), [0, 2, -100]))
    assert (z.grad[2] == 0).all()


def test_unsure_rows_without_any_labels_lose_nothing():
    z, v, _ = unsure_batch()
    hard = HardTargets("teacher_argmax", min_confidence=0.9)
    assert not hard.needs_labels
    assert hard.loss(z, v, None, ONE).tolist() == pytest.approx(cost_of(z, [0, -100, -100]))


@pytest.mark.parametrize("t", [0.01, 100.0])
def test_confidence_is_taken_at_t_1(t):
    z, v, labels = unsure_batch()
    hard = HardTargets("teacher_argmax", min_confidence=0.9)
    assert hard.loss(z, v, labels, at(t)).tolist() == pytest.approx(cost_of(z, [0, 2, -100]))


def test_just_the_confidence_asked_for_is_enough():
    z, v = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])  # p = ½ each, exactly
    assert float(HardTargets("teacher_argmax", min_confidence=0.5).loss(z, v, None, ONE)) > 0
    assert float(HardTargets("teacher_argmax", min_confidence=0.51).loss(z, v, None, ONE)) == 0


def test_an_unsure_row_of_a_mixture_keeps_its_label_alone():
    z, v, labels = unsure_batch()
    loss = HardTargets("teacher_argmax", min_confidence=0.9, mixture=0.4).loss(z, v, labels, ONE)
    sure, label = cost_of(z, [0, 0, 0]), cost_of(z, [2, 2, -100])
    assert loss.tolist() == pytest.approx([0.4 * sure[0] + 0.6 * label[0], label[1], 0.0])


def test_the_confidence_of_a_sample_is_that_of_the_class_drawn():
    """Of a teacher at (0.73, 0.27) only the first class passes a bar of 0.5; rows that draw the other lose nothing."""
    torch.manual_seed(0)
    z, v = torch.tensor([0.0, 1.0]).expand(4000, 2), torch.tensor([1.0, 0.0]).expand(4000, 2)
    loss = HardTargets("teacher_sample", min_confidence=0.5).loss(z, v, None, ONE)
    first, _ = costs([0.0, 1.0])
    kept = loss > 0
    assert loss[kept].tolist() == pytest.approx([first] * int(kept.sum()), rel=1e-5)
    assert abs(float(kept.float().mean()) - 1 / (1 + math.exp(-1))) < 0.025


# ---------------------------------------------------------------------------------------------------- arguments

KINDS = "labels, teacher_argmax, teacher_sample"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "soft"}, f"hard targets 'soft' are unknown: give one of {KINDS}"),
        ({"kind": ""}, f"hard targets '' are unknown: give one of {KINDS}"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0: give a number in [0, 1)"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1: give a number in [0, 1)"),
        ({"label_smoothing": math.nan}, "label_smoothing is nan: give a number in [0, 1)"),
        ({"top_k": 3}, "top_k is 3 with kind 'labels': give k ≥ 1 with kind 'teacher_sample'"),
        (
            {"kind": "teacher_argmax", "top_k": 3},
            "top_k is 3 with kind 'teacher_argmax': give k ≥ 1 with kind 'teacher_sample'",
        ),
        (
            {"kind": "teacher_sample", "top_k": 0},
            "top_k is 0 with kind 'teacher_sample': give k ≥ 1 with kind 'teacher_sample'",
        ),
        ({"kind": "teacher_argmax", "mixture": 1.5}, "mixture is 1.5: give a number in [0, 1]"),
        ({"kind": "teacher_argmax", "mixture": -0.5}, "mixture is -0.5: give a number in [0, 1]"),
        ({"kind": "teacher_argmax", "mixture": math.nan}, "mixture is nan: give a number in [0, 1]"),
        ({"mixture": 0.5}, "mixture is 0.5 with kind 'labels': give a kind that asks the teacher"),
        ({"kind": "teacher_argmax", "min_confidence": 1.1}, "min_confidence is 1.1: give a number in [0, 1]"),
        ({"min_confidence": 0.5}, "min_confidence is 0.5 with kind 'labels': give a kind that asks the teacher"),
    ],
)
def test_what_hard_targets_refuse(arguments, message):
    with pytest.raises(TargetError) as error:
        HardTargets(**arguments)
    assert str(error.value) == message


def test_the_borders_are_allowed():
    HardTargets("teacher_argmax", label_smoothing=0.0, mixture=0.0, min_confidence=1.0)
    HardTargets("teacher_sample", top_k=1, mixture=1.0, min_confidence=0.0)


@pytest.mark.parametrize(
    ("hard", "needed"),
    [
        (HardTargets(), True),
        (HardTargets(label_smoothing=0.1), True),
        (HardTargets("teacher_argmax"), False),
        (HardTargets("teacher_argmax", min_confidence=0.9), False),
        (HardTargets("teacher_sample", top_k=2), False),
        (HardTargets("teacher_argmax", mixture=0.5), True),
        (HardTargets("teacher_sample", mixture=0.0), True),
    ],
)
def test_when_labels_are_needed(hard, needed):
    z, v, labels = batch()
    assert hard.needs_labels is needed
    objective = DistillationObjective(alpha=0.5, hard=hard)
    objective(student_logits=z, teacher_logits=v, labels=labels)
    if needed:
        with pytest.raises(TargetError, match="labels are missing while alpha is below 1: "):
            objective(student_logits=z, teacher_logits=v)
    else:
        objective(student_logits=z, teacher_logits=v)
    DistillationObjective(alpha=1.0, hard=hard)(student_logits=z, teacher_logits=v)


# ---------------------------------------------------------------------------------------------------- wrong teacher


def divergence_rows(z, v, t):
    return t * t * DIVERGENCES["forward_kl"](log_temper(z, t), log_temper(v, t))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_rows_the_teacher_gets_wrong_weigh_less(weight):
    z, v, _ = batch()
    labels = v.argmax(-1)
    labels[[1, 4]] = (labels[[1, 4]] + 1) % 5
    loss = DistillationObjective(3.0, alpha=0.6, wrong_teacher=weight)(
        student_logits=z, teacher_logits=v, labels=labels
    )
    weights = torch.tensor([1.0, weight, 1.0, 1.0, weight, 1.0])
    # The mean is over all rows: a row that weighs less takes less part, and does not lend its part to others.
    assert float(loss.terms["divergence"]) == pytest.approx(float((weights * divergence_rows(z, v, 3.0)).mean()))
    assert float(loss.terms["hard"]) == pytest.approx(sum(cost_of(z, labels.tolist())) / 6)


def test_rows_without_a_label_keep_the_weight_1():
    z, v, _ = batch()
    labels = (v.argmax(-1) + 1) % 5
    labels[[0, 5]] = -100
    objective = DistillationObjective(3.0, alpha=1.0, wrong_teacher=0.25)
    loss = objective(student_logits=z, teacher_logits=v, labels=labels, mask=torch.ones(6, dtype=torch.bool))
    weights = torch.tensor([1.0, 0.25, 0.25, 0.25, 0.25, 1.0])
    assert float(loss.total) == pytest.approx(float((weights * divergence_rows(z, v, 3.0)).mean()))
    unlabelled = objective(student_logits=z, teacher_logits=v)
    assert float(unlabelled.total) == pytest.approx(float(divergence_rows(z, v, 3.0).mean()))


def test_the_gradient_of_a_wrong_row_weighs_less_too():
    z, v, _ = batch(2)
    labels = v.argmax(-1)
    labels[1] = (labels[1] + 1) % 5
    gradients = []
    for weight in (1.0, 0.25):
        z.requires_grad_()
        loss = DistillationObjective(3.0, alpha=1.0, wrong_teacher=weight)
        loss = loss(student_logits=z, teacher_logits=v, labels=labels).total
        gradients.append(torch.autograd.grad(loss, z)[0])
    torch.testing.assert_close(gradients[1], gradients[0] * torch.tensor([[1.0], [0.25]]))


class Mixed(TemperaturePolicy):
    """Targets that are mostly the student's own."""

    def forward(self, teacher_logits, student_logits, labels=None, progress=0.0):
        one = torch.ones((), dtype=torch.float64)
        return Temperatures(one, one, one, teacher_share=0.1 * one)


def test_it_is_the_teacher_who_is_wrong_and_not_the_mixed_target():
    """With targets interpolated from student to teacher the label is still compared with the teacher's top class."""
    z = torch.tensor([[9.0, 0.0, 0.0], [6.0, 0.0, 0.0]], dtype=torch.float64)
    v = torch.tensor([[0.0, 3.0, 0.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([1, 0])  # the teacher is right, and wrong; the student, and the mixture, the other way round
    objective = DistillationObjective(Mixed(), alpha=1.0, wrong_teacher=0.0)
    total = objective(student_logits=z, teacher_logits=v, labels=labels).total
    rows = DIVERGENCES["forward_kl"](log_temper(z, 1.0), log_temper(0.9 * z + 0.1 * v, 1.0))
    assert float(total) == pytest.approx(float(rows[0]) / 2, rel=1e-6)


def test_masked_classes_stay_masked_in_a_mixed_target():
    z, v, _ = batch()
    expected = DistillationObjective(Mixed(), alpha=1.0)(student_logits=z[:, :4], teacher_logits=v[:, :4]).total
    z[:, 4] = v[:, 4] = -INF
    total = DistillationObjective(Mixed(), alpha=1.0)(student_logits=z, teacher_logits=v).total
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_what_wrong_teacher_refuses(bad):
    with pytest.raises(TargetError) as error:
        DistillationObjective(wrong_teacher=bad)
    assert str(error.value) == f"wrong_teacher is {bad}: give a number in [0, 1]"


# ---------------------------------------------------------------------------------------------------- not finite


def test_a_student_logit_that_is_nan_names_the_row_and_the_temperature():
    z, v, labels = batch()
    z[3, 2] = math.nan
    with pytest.raises(LossError) as error:
        DistillationObjective(2.5, alpha=0.5)(student_logits=z, teacher_logits=v, labels=labels)
    assert error.value.row == 3
    assert str(error.value).startswith("the divergence loss of row 3 is nan at T = 2.5: ")


def test_rows_are_counted_among_the_valid_ones():
    z, v, labels = batch()
    z[3, 2] = math.nan
    mask = torch.tensor([True, False, False, True, True, True])
    with pytest.raises(LossError) as error:
        DistillationObjective(2.5)(student_logits=z, teacher_logits=v, labels=labels, mask=mask)
    assert error.value.row == 1


def test_the_first_bad_row_is_named():
    z, v, labels = batch()
    z[[2, 4], 0] = math.nan
    with pytest.raises(LossError, match="row 2 is nan"):
        DistillationObjective(2.5)(student_logits=z, teacher_logits=v, labels=labels)


class ByRow(TemperaturePolicy):
    def forward(self, teacher_logits, student_logits, labels=None, progress=0.0):
        t = torch.arange(1.0, 1.0 + len(student_logits), dtype=torch.float64)[:, None]
        return Temperatures(t, t, t[:, 0] ** 2)


def test_the_temperature_named_is_that_of_the_row():
    z, v, labels = batch()
    z[3, 2] = math.nan
    with pytest.raises(LossError, match=r"row 3 is nan at T = 4: "):
        DistillationObjective(ByRow())(student_logits=z, teacher_logits=v, labels=labels)


def test_of_two_temperatures_the_one_named_is_the_students():
    z, v, labels = batch()
    z[0, 0] = math.nan
    with pytest.raises(LossError, match=r"row 0 is nan at T = 3: "):
        DistillationObjective(Constant(teacher=5.0, student=3.0))(student_logits=z, teacher_logits=v, labels=labels)


def test_a_class_masked_for_the_student_alone_is_an_infinite_row():
    z, v, labels = batch()
    z[2, 1] = -INF
    with pytest.raises(LossError, match=r"the divergence loss of row 2 is inf at T = 4: .*mask no class on one side"):
        DistillationObjective(4.0, alpha=1.0)(student_logits=z, teacher_logits=v, labels=labels)


@pytest.mark.parametrize("hard", ["labels", "teacher_argmax", "teacher_sample"])
def test_the_hard_loss_is_named_with_its_own_temperature(hard):
    """The hard loss divides by ``temperatures.hard``, 1 where there is none, and not by the divergence's T."""
    z, v, labels = batch()
    z[3, 2] = math.nan
    with pytest.raises(LossError) as error:
        DistillationObjective(2.5, alpha=0.0, hard=hard)(student_logits=z, teacher_logits=v, labels=labels)
    assert error.value.row == 3
    assert str(error.value).startswith("the hard loss of row 3 is nan at T = 1: ")


@pytest.mark.parametrize("hard", ["labels", "teacher_argmax"])
def test_nan_in_rows_that_are_masked_does_no_harm(hard):
    z, v, labels = batch()
    mask = torch.tensor([True, True, True, False, True, True])
    expected = DistillationObjective(alpha=0.5, hard=hard)(
        student_logits=z, teacher_logits=v, labels=labels, mask=mask
    ).total
    z[3], v[3] = math.nan, math.nan
    result = DistillationObjective(alpha=0.5, hard=hard)(student_logits=z, teacher_logits=v, labels=labels, mask=mask)
    assert result.total == expected


# ---------------------------------------------------------------------------------------------------- denominators

EVERY = [
    HardTargets(),
    HardTargets(label_smoothing=0.2),
    HardTargets("teacher_argmax"),
    HardTargets("teacher_argmax", mixture=0.3),
    HardTargets("teacher_argmax", min_confidence=0.7),
    HardTargets("teacher_sample", top_k=1),
]
every = pytest.mark.parametrize("hard", EVERY, ids=lambda hard: repr(hard)[12:-1])


@every
def test_the_mean_is_over_valid_rows(hard):
    z, v, labels = batch()
    mask = torch.tensor([True, False, True, True, False, False])
    loss = DistillationObjective(2.0, alpha=0.4, hard=hard)(
        student_logits=z, teacher_logits=v, labels=labels, mask=mask
    )
    rows = hard.loss(z, v, labels, ONE)
    assert float(loss.terms["hard"]) == pytest.approx(float(rows[mask].sum()) / 3)
    assert float(loss.terms["divergence"]) == pytest.approx(float(divergence_rows(z, v, 2.0)[mask].sum()) / 3)
    assert float(loss.total) == pytest.approx(0.4 * float(loss.terms["divergence"]) + 0.6 * float(loss.terms["hard"]))


def split(objective, z, v, labels, mask, num_valid, sizes=(1, 4, 2, 5)):
    pieces = zip(*(x.split(sizes) if x is not None else [None] * len(sizes) for x in (z, v, labels, mask)), strict=True)
    return sum(
        objective(student_logits=a, teacher_logits=b, labels=c, mask=m, num_valid=num_valid).total
        for a, b, c, m in pieces
    )


@every
def test_a_ragged_split_sums_to_the_whole(hard):
    z, v, labels = batch(12)
    labels[[0, 5, 6, 7, 11]] = -100  # the first part has no row at all
    z.requires_grad_()
    objective = DistillationObjective(3.0, alpha=0.4, hard=hard, wrong_teacher=0.5)
    whole = objective(student_logits=z, teacher_logits=v, labels=labels).total
    parts = split(objective, z, v, labels, None, (labels != -100).sum())
    assert float(parts.detach()) == pytest.approx(float(whole.detach()), rel=1e-9)
    torch.testing.assert_close(torch.autograd.grad(parts, z)[0], torch.autograd.grad(whole, z)[0])


@every
def test_so_does_one_under_a_mask_that_keeps_rows_without_a_label(hard):
    """One number, ``num_valid``, is the denominator of both terms: it must give what the whole batch gives."""
    z, v, labels = batch(12)
    labels[[0, 5, 6, 7]] = -100
    mask = torch.ones(12, dtype=torch.bool)
    mask[[4, 6]] = False
    objective = DistillationObjective(3.0, alpha=0.4, hard=hard)
    whole = objective(student_logits=z, teacher_logits=v, labels=labels, mask=mask).total
    assert float(split(objective, z, v, labels, mask, mask.sum())) == pytest.approx(float(whole), rel=1e-9)


@every
def test_a_batch_without_a_valid_row_is_a_loss_of_nothing(hard):
    z, v, labels = batch()
    z.requires_grad_()
    objective = DistillationObjective(2.0, alpha=0.5, hard=hard)
    loss = objective(student_logits=z, teacher_logits=v, labels=torch.full_like(labels, -100)).total
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(z.grad.abs().sum()) == 0.0


def test_rows_left_without_a_target_are_counted_by_the_mean():
    """Of the teacher alone: num_valid is known before the teacher has spoken, so an unsure row counts and adds 0."""
    z, v, _ = unsure_batch()
    hard = HardTargets("teacher_argmax", min_confidence=0.9)
    loss = DistillationObjective(alpha=0.0, hard=hard)(student_logits=z, teacher_logits=v)
    assert float(loss.total) == pytest.approx(cost_of(z, [0, 0, 0])[0] / 3)


def test_labels_on_a_hard_loss_of_the_teacher_change_nothing():
    z, v, labels = batch()
    objective = DistillationObjective(alpha=0.0, hard="teacher_argmax")
    mask = torch.ones(6, dtype=torch.bool)
    expected = objective(student_logits=z, teacher_logits=v).total
    labels[2] = -100
    assert objective(student_logits=z, teacher_logits=v, labels=labels, mask=mask).total == expected
