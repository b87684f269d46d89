"""One store serves every temperature: nothing of a temperature is in it."""

import pytest
import torch

from setpoint import DistillationObjective, FrozenTeacher, TargetStore, temper
from targets.conformance import LABELS, MADE_FROM, bert, collate, examples

DATA = examples()
TEMPERATURES = [0.25, 1.0, 2.0, 4.0, 32.0]


@pytest.fixture(scope="module")
def teacher():
    return FrozenTeacher(bert(), LABELS)


@pytest.fixture(scope="module", params=["float16", "float32"])
def store(request, teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return TargetStore.build(folder, teacher, DATA, collate, MADE_FROM, dtype=request.param, shard_examples=4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jensen_shannon", "logit_mse"])
def test_loss_and_gradient_are_zero_where_the_student_is_the_teacher(store, temperature, divergence):
    targets = store(collate(DATA))
    student = targets.clone().requires_grad_()
    objective = DistillationObjective(temperature=temperature, divergence=divergence, alpha=1.0)
    loss = objective(student_logits=student, teacher_logits=targets).total
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_and_nowhere_else(store, temperature):
    targets = store(collate(DATA))
    student = (1.5 * targets).requires_grad_()  # the teacher at another temperature
    loss = DistillationObjective(temperature=temperature, alpha=1.0)(
        student_logits=student, teacher_logits=targets
    ).total
    loss.backward()
    assert loss > 1e-4
    assert student.grad.abs().max() > 1e-4


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_live_and_stored_targets_are_the_same_at_every_temperature(store, teacher, temperature):
    batch = collate(DATA)
    tolerance = 1e-5 if store.dtype == "float32" else 5e-3 / min(temperature, 1)
    torch.testing.assert_close(
        temper(store(batch), temperature), temper(teacher(batch), temperature), rtol=0, atol=tolerance
    )
