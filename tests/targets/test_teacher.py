from types import SimpleNamespace

import pytest
import torch
from torch import nn

from setpoint import FrozenTeacher
from setpoint.errors import ModelError, TargetError
from targets.conformance import LABELS, bert, collate, examples


class Net(nn.Module):
    """Dropout and batch norm: what betrays a teacher that is not in eval mode."""

    def __init__(self, wrap=lambda logits: logits):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.layers(x))


def batch(n=6):
    torch.manual_seed(1)
    labels = torch.tensor([0, 1, -100, 3, 2, 1])[:n]
    return {"x": torch.randn(n, 5) * 9 + 4, "labels": labels, "example_id": [f"train-{i}" for i in range(n)]}


def test_the_model_is_frozen_and_at_hand():
    model = Net().train()
    teacher = FrozenTeacher(model, LABELS)
    assert teacher.model is model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_batch_norm_statistics_and_weights_stay_to_the_bit():
    teacher = FrozenTeacher(Net().train(), LABELS)
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    assert before["layers.1.running_mean"].abs().sum() == 0  # of a batch with mean 4 they would move
    for _ in range(3):
        teacher(batch())
    after = teacher.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_dropout_is_off():
    teacher = FrozenTeacher(Net().train(), LABELS)
    assert torch.equal(teacher(batch()), teacher(batch()))


@pytest.mark.parametrize(
    ("undo", "message"),
    [
        (lambda model: model.train(), "put back into training mode: call eval"),
        (lambda model: model.layers[1].train(), "put back into training mode: call eval"),
        (lambda model: model.layers[3].bias.requires_grad_(True), "ask for gradients again: call requires_grad_"),
    ],
    ids=["model", "one layer", "gradients"],
)
def test_a_teacher_that_was_thawed_is_refused(undo, message):
    teacher = FrozenTeacher(Net(), LABELS)
    teacher(batch())
    undo(teacher.model)
    with pytest.raises(TargetError, match=message):
        teacher(batch())


@pytest.mark.parametrize(
    "wrap",
    [lambda x: x, lambda x: {"logits": x, "loss": None}, lambda x: SimpleNamespace(logits=x)],
    ids=["tensor", "mapping", "attribute"],
)
def test_every_kind_of_output(wrap):
    teacher = FrozenTeacher(Net(wrap), LABELS)
    rows = [0, 1, 3, 4, 5]
    torch.testing.assert_close(teacher(batch()), teacher.model.layers(batch()["x"])[rows])


def test_no_gradient_reaches_the_inputs():
    given = batch()
    given["x"].requires_grad_()
    logits = FrozenTeacher(Net(), LABELS)(given)
    assert not logits.requires_grad


class Recorder(nn.Module):
    """Takes what its signature names, and keeps it."""

    def forward(self, input_ids, attention_mask=None, labels=None):
        self.seen = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        return torch.zeros(*input_ids.shape, 4)


class Greedy(nn.Module):
    def forward(self, **inputs):
        self.seen = inputs
        return torch.zeros(*inputs["input_ids"].shape, 4)


def test_the_model_gets_its_inputs_and_nothing_else():
    given = collate(examples()) | {"word_ids": torch.zeros(3)}
    modest, greedy = Recorder(), Greedy()
    FrozenTeacher(modest, LABELS)(given)
    FrozenTeacher(greedy, LABELS)(given)
    assert modest.seen["labels"] is None
    assert torch.equal(modest.seen["attention_mask"], given["attention_mask"])
    assert greedy.seen.keys() == {"input_ids", "attention_mask", "word_ids"}


def test_a_missing_mask_would_be_seen():
    # The conformance suite compares with unpadded sentences; this shows that the mask is what makes them equal.
    teacher, given = FrozenTeacher(bert(), LABELS), collate(examples())
    masked = teacher(given)
    unmasked = teacher({name: value for name, value in given.items() if name != "attention_mask"})
    assert (masked - unmasked).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_float32_whatever_the_models_dtype(dtype):
    model = nn.Linear(5, 4).to(dtype)
    given = batch()
    logits = FrozenTeacher(model, LABELS)({"input": given["x"].to(dtype), "labels": given["labels"]})
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_named_by_example(value):
    given = batch()
    given["x"][3] = value
    with pytest.raises(TargetError, match=r"not finite for example 'train-3': mend the teacher"):
        FrozenTeacher(nn.Sequential(nn.Linear(5, 4)), LABELS)({"input": given.pop("x"), **given})


def test_many_bad_examples_are_counted_and_need_no_ids():
    given = batch()
    given["x"][:] = float("nan")
    ids = given.pop("example_id")
    teacher = FrozenTeacher(Net(), LABELS)
    with pytest.raises(TargetError, match=r"for examples number 0 of the batch, number 1 of the batch, .* and 2 more"):
        teacher(given)
    with pytest.raises(TargetError, match="for examples 'train-0', 'train-1', 'train-3' and 2 more"):
        teacher(given | {"example_id": ids})


def test_what_is_not_finite_outside_the_rows_does_not_matter():
    given = batch()
    given["x"][2] = float("nan")  # its label is -100
    assert torch.isfinite(FrozenTeacher(Net(), LABELS)(given)).all()


def test_bad_rows_of_ragged_sentences_are_named_by_their_sentence():
    class Faulty(nn.Module):
        def forward(self, input_ids):
            logits = torch.zeros(*input_ids.shape, 4)
            logits[6, data[6]["labels"].index(next(x for x in data[6]["labels"] if x != -100)), 2] = float("nan")
            return logits

    data = examples()
    with pytest.raises(TargetError, match="example 'x6':"):
        FrozenTeacher(Faulty(), LABELS)(collate(data))


def test_class_order_puts_columns_where_the_labels_are():
    model = nn.Linear(4, 4, bias=False)
    model.weight.data = torch.eye(4)
    given = {"input": torch.tensor([[10.0, 11.0, 12.0, 13.0]]), "labels": torch.tensor([0])}
    assert FrozenTeacher(model, LABELS, class_order=[2, 0, 3, 1])(given).tolist() == [[12.0, 10.0, 13.0, 11.0]]


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 0, 1, 2], [1, 2, 3, 4]])
def test_a_class_order_that_is_none_is_refused(order):
    with pytest.raises(ModelError, match="does not name each of 4 columns once"):
        FrozenTeacher(nn.Linear(4, 4), LABELS, class_order=order)


@pytest.mark.parametrize("kind", ["tokens", "sentences"])
def test_logits_of_another_shape_are_refused(kind):
    other = "sentences" if kind == "tokens" else "tokens"
    with pytest.raises(TargetError, match=r"logits of shape .* where labels and classes ask for \(11"):
        FrozenTeacher(bert(other), LABELS)(collate(examples(kind)))


def test_another_number_of_classes_is_refused():
    with pytest.raises(TargetError, match=r"shape \(6, 4\) .* ask for \(6, 2\)"):
        FrozenTeacher(Net(), ("no", "yes"))(batch())
