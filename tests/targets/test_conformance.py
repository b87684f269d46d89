import pytest

from setpoint import FrozenTeacher, TargetStore
from targets.conformance import LABELS, MADE_FROM, InMemory, TargetSourceConformance, collate


class TestFrozenTeacher(TargetSourceConformance):
    @pytest.fixture
    def source(self, model):
        return FrozenTeacher(model, LABELS)


class TestReorderedTeacher(TargetSourceConformance):
    """The head of the model has its classes in another order, and the source puts them right."""

    @pytest.fixture
    def source(self, model, table):
        order = [2, 0, 3, 1]
        model.classifier.weight.data = model.classifier.weight.data[order]
        model.classifier.bias.data = model.classifier.bias.data[order]
        return FrozenTeacher(model, LABELS, class_order=[order.index(c) for c in range(4)])


class StoreConformance(TargetSourceConformance):
    @pytest.fixture
    def source(self, model, data, tmp_path):
        teacher = FrozenTeacher(model, LABELS)
        TargetStore.build(tmp_path, teacher, data, collate, MADE_FROM, dtype=self.dtype, shard_examples=4, batch_size=3)
        return TargetStore.open(tmp_path, MADE_FROM)


class TestStoreInFloat32(StoreConformance):
    dtype = "float32"


class TestStoreInFloat16(StoreConformance):
    dtype = "float16"
    tolerance = 1e-3


class TestInMemory(TargetSourceConformance):
    @pytest.fixture
    def source(self, table):
        return InMemory(table)
