"""How a model's output becomes rows of a loss: the plain way, and a task's own."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from setpoint import DistillationObjective, FrozenTeacher, TargetStore
from setpoint.errors import TargetError
from setpoint.evaluation import MOST_LOGITS, Outputs, outputs_of, predict, sample
from setpoint.reading import Reading
from setpoint.targets.fingerprint import Fingerprint
from setpoint.types import valid_rows

MADE_FROM = Fingerprint(teacher="t", tokenizer="-", preprocessing="-", data="d")
DATA = [{"id": f"e{i}", "x": [0.5 * i, 1.0 - i, float(i % 3)], "labels": i % 2} for i in range(7)]


def collate(examples):
    return {
        "input": torch.tensor([example["x"] for example in examples]),
        "labels": torch.tensor([example["labels"] for example in examples]),
        "task_shift": torch.tensor([example["x"][0] for example in examples]),
        "example_id": [example["id"] for example in examples],
    }


class Shifted(Reading):
    """Two classes and a third masked, and an extra column that is the input's first number."""

    extras = 1

    def logits(self, output, batch):
        masked = torch.full_like(output[:, :1], -math.inf)
        return torch.cat([output, masked, batch["task_shift"][:, None]], -1)


def teacher():
    torch.manual_seed(0)
    return FrozenTeacher(nn.Linear(3, 2), labels=("a", "b", "none"), reading=Shifted())


def test_columns_of_the_task_reach_its_reading_and_no_model():
    said = teacher()(collate(DATA))
    assert said.shape == (7, 4)
    assert torch.equal(said[:, 3], torch.tensor([example["x"][0] for example in DATA]))
    assert (said[:, 2] == -math.inf).all()


def test_a_store_keeps_masked_classes_and_extras_and_gives_classes_alone_where_all_are_asked_for(tmp_path):
    source = teacher()
    store = TargetStore.build(tmp_path, source, DATA, collate, MADE_FROM, extras=1, dtype="float32", shard_examples=3)
    assert torch.equal(store(collate(DATA[2:5])), source(collate(DATA[2:5])))
    assert store.all_logits().shape == (7, 3)
    assert store.some_logits(3).shape[1] == 3
    assert TargetStore.open(tmp_path).extras == 1


def test_a_row_without_a_class_that_is_not_masked_is_refused(tmp_path):
    class Nothing(Reading):
        def logits(self, output, batch):
            return torch.full_like(output, -math.inf)

    source = FrozenTeacher(nn.Linear(3, 2), labels=("a", "b"), reading=Nothing())
    with pytest.raises(TargetError, match="not finite for examples? 'e0'"):
        source(collate(DATA))


def test_a_loss_of_ones_own_stands_in_for_the_labels_and_what_is_beside_is_added():
    objective = DistillationObjective(temperature=2.0, alpha=0.25)
    z, v = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    beside, hard = torch.rand(5, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True, False])
    loss = objective(student_logits=z, teacher_logits=v, mask=mask, beside=beside, hard_loss=hard)
    q, p = (x[mask].div(2).softmax(-1) for x in (z, v))
    by_hand = 4 * (p * (p / q).log()).sum(-1) + beside[mask]
    expected = 0.25 * by_hand.mean() + 0.75 * hard[mask].mean()
    assert float(loss.total) == pytest.approx(float(expected), abs=1e-12)


def test_a_weight_multiplies_a_rows_divergence_and_nothing_else():
    objective = DistillationObjective(temperature=2.0, alpha=0.25)
    z, v = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    weight, beside, hard = (torch.rand(5, dtype=torch.float64) for _ in range(3))
    mask = torch.tensor([True, False, True, True, False])
    given = {"student_logits": z, "teacher_logits": v, "mask": mask, "beside": beside, "hard_loss": hard}
    loss = objective(**given, weight=weight)
    q, p = (x[mask].div(2).softmax(-1) for x in (z, v))
    by_hand = weight[mask] * 4 * (p * (p / q).log()).sum(-1) + beside[mask]  # the mean is over rows, not over weights
    assert float(loss.total) == pytest.approx(float(0.25 * by_hand.mean() + 0.75 * hard[mask].mean()), abs=1e-12)
    assert float(objective(**given, weight=torch.ones(5)).total) == float(objective(**given).total)


def test_rows_are_those_with_labels_and_numbers_have_none_where_they_are_nan():
    assert valid_rows({"labels": torch.tensor([1.5, math.nan, -100.0])}).tolist() == [True, False, True]
    logits = torch.arange(12.0).reshape(2, 3, 2)
    labels = torch.tensor([[1, -100, 0], [-100, -100, 1]])
    rows = Reading().loss_rows(logits, {"labels": labels}, None)
    assert rows.student_logits.tolist() == [[0, 1], [4, 5], [10, 11]]
    assert rows.labels.tolist() == [1, 0, 1]


def test_what_scores_need_not_is_not_kept():
    class Task(Reading):
        def scored(self, logits, labels):
            return (logits.argmax(-1) == labels).float()[..., None]

    torch.manual_seed(0)
    source = FrozenTeacher(nn.Linear(3, 2), labels=("a", "b"))
    said = outputs_of(source, Task(), DATA, collate)
    assert isinstance(said, Outputs)
    assert [row.shape for row in said.scored] == [(1, 1)] * 7
    every = predict(source, DATA, collate)
    right = [float(row[0].argmax() == example["labels"]) for row, example in zip(every, DATA, strict=True)]
    assert [float(row[0, 0]) for row in said.scored] == right
    assert 0 < sum(right) < 7
    assert np.array_equal(np.concatenate(said.logits), np.concatenate(every))


@pytest.mark.parametrize(("rows", "classes", "left"), [(10, 2, 10), (10, MOST_LOGITS // 5, 5), (10, MOST_LOGITS, 1)])
def test_a_sample_is_as_large_as_memory_bears(rows, classes, left):
    assert len(sample([{"labels": 0}] * rows, classes)) == left
