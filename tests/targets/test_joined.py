import pytest
import torch
from torch import nn

from setpoint.errors import TargetError
from setpoint.targets.fingerprint import Fingerprint
from setpoint.targets.joined import JoinedStores
from setpoint.targets.store import TargetStore
from setpoint.targets.teacher import FrozenTeacher


def collate(examples):
    return {
        "input": torch.tensor([example["x"] for example in examples]),
        "labels": torch.tensor([example["labels"] for example in examples]),
        "example_id": [example["id"] for example in examples],
    }


@pytest.fixture
def stores(tmp_path):
    data = [{"id": name, "x": [float(i), 1.0], "labels": [0, -100]} for i, name in enumerate("abcd")]

    class Teacher(nn.Linear):
        def forward(self, input):
            return super().forward(input[..., None])

    teacher = FrozenTeacher(Teacher(1, 2), labels=("no", "yes"))

    def build(name, part):
        made_from = Fingerprint(name, "none", "none", "x")
        return TargetStore.build(tmp_path / name, teacher, part, collate, made_from, dtype="float32")

    return teacher, data, [build("one", data[:3]), build("two", data[3:])]


def test_each_example_is_looked_up_where_it_is_in_the_order_of_the_batch(stores):
    teacher, data, (one, two) = stores
    batch = collate([data[3], data[0], data[2]])
    assert torch.equal(JoinedStores([one, two])(batch), teacher(batch))
    assert JoinedStores([one, two]).labels == ("no", "yes")


def test_an_example_that_is_nowhere_is_named(stores):
    _, data, (one, two) = stores
    with pytest.raises(TargetError, match="example 'd' is not in the target store"):
        JoinedStores([one])(collate([data[0], data[3]]))
    two.labels = ("yes", "no")
    with pytest.raises(TargetError, match="of other labels"):
        JoinedStores([one, two])
