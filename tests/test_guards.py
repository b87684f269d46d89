import math

import pytest
import torch

from reference import distillation as ref
from setpoint import Constant, DistillationObjective, Linear, SetpointWarning
from setpoint.guards import Look, complaints, label_smoothing, look, smoothed_teacher
from setpoint.temperature import (
    Continuation,
    DynamicTemperature,
    Interpolation,
    LogitStandardisation,
    Spherical,
    TokenAdaptive,
)

GENERATOR = torch.Generator().manual_seed(0)


def batch(n=8, classes=5):
    z, v = (2 * torch.randn(n, classes, dtype=torch.float64, generator=GENERATOR) for _ in range(2))
    return {"student_logits": z, "teacher_logits": v, "labels": torch.randint(0, classes, (n,), generator=GENERATOR)}


def seen(temperature, alpha=0.5, **changes):
    objective = DistillationObjective(temperature, alpha=alpha)
    given = batch() | changes
    return look(objective, objective(**given).temperatures, **given)


def test_the_gradient_share_is_that_of_the_closed_forms():
    given, t, alpha = batch(), 3.0, 0.7
    share = DistillationObjective(t, alpha=alpha).gradient_share(**given)
    soft, hard = [], []
    for z, v, y in zip(*(given[k].tolist() for k in ("student_logits", "teacher_logits", "labels")), strict=True):
        soft += [alpha * t * (a - b) for a, b in zip(ref.softmax(z, t), ref.softmax(v, t), strict=True)]
        hard += [(1 - alpha) * (a - (k == y)) for k, a in enumerate(ref.softmax(z))]
    soft, hard = (math.sqrt(math.fsum(x * x for x in side)) for side in (soft, hard))
    assert share == pytest.approx(soft / (soft + hard), rel=1e-6)


def test_one_term_alone_has_all_of_the_gradient_or_none():
    given = batch()
    assert DistillationObjective(2.0, alpha=1.0).gradient_share(**given) == pytest.approx(1.0)
    assert DistillationObjective(2.0, alpha=0.0).gradient_share(**given) == 0.0
    assert seen(2.0, alpha=1.0).kd_gradient_share is None  # nothing to weigh it against


@pytest.mark.parametrize("policy", [TokenAdaptive, Interpolation])
def test_looking_changes_neither_state_nor_gradients_nor_the_random_numbers(policy):
    objective = DistillationObjective(policy(), hard="teacher_sample")
    given = batch()
    given["student_logits"].requires_grad_()
    objective(**given)
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    random = torch.get_rng_state()
    look(objective, objective.eval()(**given).temperatures, **given)
    objective.train()
    torch.set_rng_state(random)
    objective.gradient_share(**given)
    assert torch.equal(torch.get_rng_state(), random)
    assert objective.training
    assert given["student_logits"].grad is None
    for name, value in objective.state_dict().items():
        torch.testing.assert_close(value, state[name], equal_nan=True)


def test_what_is_seen_of_a_batch():
    given = batch()
    found = seen(Constant(teacher=4.0, student=2.0), **given)
    assert (found.temperature, found.student_temperature, found.classes) == (4.0, 2.0, 5)
    entropies = [ref.entropy(ref.softmax(v, 4.0)) for v in given["teacher_logits"].tolist()]
    assert found.effective_classes == pytest.approx(sum(map(math.exp, entropies)) / len(entropies))


@pytest.mark.parametrize(
    ("temperature", "alpha", "kind", "sentence"),
    [
        (Constant(teacher=1.0, student=3.0), 0.5, "sharper",
         "the student's temperature 3 is above the teacher's 1, which makes a student sharper than its teacher: give"
         " the student at most the teacher's"),
        (0.001, 0.5, "too sharp", "the targets at T = 0.001 have 1.00 effective classes of 5 and say no more than hard"
         " labels: raise the temperature"),
        (500.0, 0.5, "too soft", "the targets at T = 500 have 5.00 effective classes of 5 and tell the classes apart no"
         " more: lower the temperature"),
        (2.0, 0.001, "drowned", "the divergence has"),
        (2.0, 0.9999, "drowned", "the hard loss has"),
    ],
)  # fmt: skip
def test_each_complaint_and_its_mend(temperature, alpha, kind, sentence):
    found = complaints(seen(temperature, alpha))
    assert kind in found
    assert found[kind].startswith(sentence)


def test_an_ordinary_temperature_is_not_complained_of():
    assert complaints(seen(2.0, 0.7)) == {}
    assert complaints(Look(2.0, 2.0, 2.5, 0.01, 5)) == {}
    assert complaints(Look(2.0, 2.0, 4.96, 0.99, 5)).keys() == {"too soft"}


@pytest.mark.parametrize("mask", [-math.inf, -1e9, torch.finfo(torch.float64).min])
def test_masked_classes_are_none_that_targets_spread_over(mask):
    """Alike over all that a row has is too soft, though most of the classes are masked."""
    given = batch(classes=40)
    for name in ("student_logits", "teacher_logits"):
        given[name][:4, 5:], given[name][4:, 15:] = mask, mask
    given["labels"] %= 5
    measured = seen(50.0, **given)
    assert measured.classes == 10  # 5 for half of the rows, 15 for the others
    assert "effective classes of 10 and tell the classes apart no more" in complaints(measured)["too soft"]


@pytest.mark.parametrize("policy", [LogitStandardisation, DynamicTemperature, Continuation, Spherical])
def test_a_published_method_is_not_told_to_be_another(policy):
    """What its temperatures are is not the user's to change, nor the weight of a loss that fades by itself."""
    assert not {"sharper", "drowned"} & complaints(seen(policy(), 0.5)).keys()


def test_a_mixed_target_is_seen_as_mixed():
    given = batch()
    given["student_logits"].zero_()
    objective = DistillationObjective(Interpolation(start=0.5), alpha=1.0)
    found = look(objective, objective(**given).temperatures, **given)
    halves = [math.exp(ref.entropy(ref.softmax([x / 2 for x in v]))) for v in given["teacher_logits"].tolist()]
    assert found.effective_classes == pytest.approx(sum(halves) / len(halves))


def smoothed(epsilon, classes, rows, noise):
    """Logits at the optimum of a label-smoothed cross-entropy, and their rounding."""
    gap = math.log(classes * (1 - epsilon) / epsilon + 1)
    labels = torch.randint(0, classes, (rows,), generator=GENERATOR)
    return gap * torch.nn.functional.one_hot(labels, classes) + noise * torch.randn(rows, classes, generator=GENERATOR)


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("classes", [5, 10, 100])
def test_label_smoothing_is_seen_and_estimated(epsilon, classes):
    assert label_smoothing(smoothed(epsilon, classes, 500, 0.1)) == pytest.approx(epsilon, rel=0.25)


def test_an_ordinary_teacher_is_not_taken_for_a_smoothed_one():
    logits = 2 * torch.randn(500, 10, generator=GENERATOR)
    logits[torch.arange(500), torch.randint(0, 10, (500,), generator=GENERATOR)] += 8
    assert label_smoothing(logits) == 0.0
    assert label_smoothing(5 * logits) == 0.0
    assert label_smoothing(smoothed(0.1, 10, 5, 0.0)) == 0.0  # too few rows to tell
    assert label_smoothing(torch.zeros(100, 10)) == 0.0
    assert label_smoothing(torch.full((100, 10), -math.inf).index_fill(1, torch.tensor([0]), 1.0)) == 0.0


def test_a_smoothed_teacher_at_a_high_temperature():
    logits = smoothed(0.1, 10, 500, 0.05)
    assert smoothed_teacher(logits, 1.0) is None
    assert smoothed_teacher(logits, 4.0).endswith("set temperature 1")


def test_the_trainer_warns_once_and_logs_what_it_sees(tmp_path):
    from torch import nn
    from transformers import TrainingArguments

    from setpoint import DistillationTrainer, FrozenTeacher

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return {"logits": self.head(x)}

    data = [{"x": torch.randn(4, generator=GENERATOR), "labels": torch.tensor(i % 3)} for i in range(32)]
    trainer = DistillationTrainer(
        model=Model(), objective=DistillationObjective(Linear(1000.0, 500.0)), train_dataset=data,
        targets=FrozenTeacher(Model(), labels=("a", "b", "c")),
        args=TrainingArguments(
            tmp_path, max_steps=6, logging_steps=2, per_device_train_batch_size=8, save_strategy="no", report_to="none",
            disable_tqdm=True, remove_unused_columns=False, use_cpu=True,
        ),
    )  # fmt: skip
    with pytest.warns(SetpointWarning) as caught:
        trainer.train()
    told = [str(w.message) for w in caught if isinstance(w.message, SetpointWarning)]
    assert len([sentence for sentence in told if "tell the classes apart no more" in sentence]) == 1
    logs = [log for log in trainer.state.log_history if "divergence" in log]
    # Seen at the first step of each interval, not averaged.
    assert [log["temperature"] for log in logs] == pytest.approx([1000.0, 1000 - 500 * 2 / 6, 1000 - 500 * 4 / 6])
    assert all(0 <= log["kd_gradient_share"] <= 1 for log in logs)
    assert all(log["effective_classes"] == pytest.approx(3.0, abs=1e-3) for log in logs)
