import random
from itertools import pairwise

import pytest
import torch
from datasets import Dataset, concatenate_datasets, load_from_disk
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from setpoint import FrozenTeacher
from setpoint.targets.fingerprint import Fingerprint, digest_dataset, digest_json, digest_model, digest_tokenizer

LABELS = ("no", "yes")
N = 500


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def tokenizer(words=("the", "cat"), **options):
    backend = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1} | {w: i + 2 for i, w in enumerate(words)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", **options)


def columns(n=N):
    rng = random.Random(3)
    return {
        "id": [f"train-{i}" for i in range(n)],
        "tokens": [[f"w{rng.randrange(99)}" for _ in range(rng.randrange(9))] for _ in range(n)],
        "pair": [None if i % 7 == 0 else f"second {i}" for i in range(n)],
        "x": [rng.random() for _ in range(n)],
    }


@pytest.fixture(scope="module")
def data():
    return Dataset.from_dict(columns())


# ---------------------------------------------------------------------------------------------------- data


def test_data_count_by_content_and_not_by_layout(data, tmp_path):
    same = digest_dataset(data)
    order = list(range(N))
    random.Random(0).shuffle(order)
    back = sorted(range(N), key=order.__getitem__)
    cuts = [data.select(range(a, b)) for a, b in pairwise((0, 7, 200, N))]
    padded = Dataset.from_dict({name: values[:5] + values + values[:3] for name, values in columns().items()})
    data.save_to_disk(tmp_path / "d", num_shards=3)
    layouts = {
        "chunks": concatenate_datasets(cuts),
        "an index": data.select(order).select(back),
        "a slice": padded.select(range(5, N + 5)),
        "the disk": load_from_disk(tmp_path / "d"),
        "order of columns": data.select_columns(["x", "pair", "tokens", "id"]),
        "a cast, which leaves a mark in the metadata": data.cast(data.features),
        "format": data.with_format("numpy"),
    }
    assert {name for name, layout in layouts.items() if digest_dataset(layout) != same} == set()


def test_nulls_and_lists_of_neighbours_do_not_count():
    whole = Dataset.from_dict({"id": ["a", "b"], "x": [None, "q"], "y": [["z", None], ["r"]]})
    alone = Dataset.from_dict({"id": ["b"], "x": ["q"], "y": [["r"]]})
    assert digest_dataset(whole.select([1])) == digest_dataset(whole.select(range(1, 2))) == digest_dataset(alone)


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("id", 499, "train-x"),
        ("tokens", 250, ["other"]),
        ("tokens", 0, []),
        ("pair", 7, ""),  # was null
        ("pair", 1, None),
        ("x", 3, 0.5),
    ],
)
def test_any_cell_counts(data, column, row, value):
    changed = columns()
    assert changed[column][row] != value
    changed[column][row] = value
    assert digest_dataset(Dataset.from_dict(changed)) != digest_dataset(data)


def test_order_number_and_names_count(data):
    changes = [
        data.select([1, 0, *range(2, N)]),
        data.select(range(N - 1)),
        data.rename_column("pair", "text"),
        Dataset.from_dict({"id": ["ab", "c"]}),
        Dataset.from_dict({"id": ["a", "bc"]}),
    ]
    assert len({digest_dataset(change) for change in [data, *changes]}) == 6


def test_a_boundary_between_lists_counts():
    a = Dataset.from_dict({"id": ["a", "b"], "tokens": [["x", "y"], ["z"]]})
    b = Dataset.from_dict({"id": ["a", "b"], "tokens": [["x"], ["y", "z"]]})
    assert digest_dataset(a) != digest_dataset(b)


# ---------------------------------------------------------------------------------------------------- model


def test_a_model_counts_by_weights_buffers_types_and_classes():
    def changed(change):
        model = net()
        with torch.no_grad():
            change(model)
        return digest_model(model, LABELS)

    digests = {
        digest_model(net(), LABELS),
        changed(lambda m: m[0].weight[1, 2].add_(1e-6)),
        changed(lambda m: m[1].running_var[3].add_(1e-6)),
        changed(lambda m: m.bfloat16()),
        digest_model(net(), ("yes", "no")),
        digest_model(net(), LABELS, (1, 0)),
    }
    assert len(digests) == 6
    assert digest_model(net(), LABELS) in digests


def test_gradients_mode_and_memory_layout_do_not_count():
    model = net()
    model[0].weight.data = model[0].weight.data.t().contiguous().t()
    frozen = FrozenTeacher(model, LABELS).model
    assert digest_model(frozen, LABELS) == digest_model(net().train(), LABELS)


def test_the_same_bytes_in_another_shape_count():
    square = torch.nn.ParameterDict({"w": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))})
    tall = torch.nn.ParameterDict({"w": torch.nn.Parameter(torch.arange(6.0).reshape(3, 2))})
    assert digest_model(square, LABELS) != digest_model(tall, LABELS)


def test_the_same_bytes_of_another_type_count():
    def zeros(dtype):
        module = torch.nn.Module()
        module.register_buffer("offset", torch.zeros(3, dtype=dtype))
        return digest_model(module, LABELS)

    assert zeros(torch.float32) != zeros(torch.int32)


# ---------------------------------------------------------------------------------------------------- the rest


def test_a_tokenizer_counts_by_its_vocabulary_and_not_by_its_last_call():
    used = tokenizer()
    used(["the cat", "the"], truncation=True, max_length=1, padding=True)
    assert used.backend_tokenizer.truncation is not None
    assert digest_tokenizer(used) == digest_tokenizer(tokenizer())
    assert used.backend_tokenizer.truncation is not None  # and it is left as it was
    assert digest_tokenizer(tokenizer(("the", "dog"))) != digest_tokenizer(tokenizer())
    assert digest_tokenizer(None) == "none"


def test_json_counts_by_value_and_not_by_order():
    assert digest_json({"a": 1, "b": [1, 2]}) == digest_json({"b": [1, 2], "a": 1})
    assert digest_json({"a": 1, "b": [1, 2]}) != digest_json({"a": 1, "b": [2, 1]})
    assert digest_json({"max_length": 128}) != digest_json({"max_length": "128"})


def test_each_part_of_a_fingerprint_is_one_thing(data):
    def of(model=None, words=("the", "cat"), length=128, rows=data, order=None):
        teacher = FrozenTeacher(model or net(), LABELS, order)
        return Fingerprint.of(teacher, tokenizer(words), {"max_length": length}, rows)

    other = net()
    other[2].bias.data[0] += 1
    base = of()
    assert base.differences(of()) == []
    assert base.differences(of(model=other)) == ["teacher"]
    assert base.differences(of(order=(1, 0))) == ["teacher"]
    assert base.differences(of(words=("the", "dog"))) == ["tokenizer"]
    assert base.differences(of(length=64)) == ["preprocessing"]
    assert base.differences(of(rows=data.select(range(9)))) == ["data"]
    assert Fingerprint(**base.as_dict()) == base
