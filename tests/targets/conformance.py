"""What every source of targets has to do, and the small world that it is tested in."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from setpoint.targets.fingerprint import Fingerprint
from setpoint.types import IGNORED_LABEL

LABELS = ("O", "PER", "LOC", "ORG")
MADE_FROM = Fingerprint("teacher", "tokenizer", "preprocessing", "data")
TINY = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 32, "num_labels": len(LABELS), "initializer_range": 0.5,
}  # fmt: skip


def bert(kind="tokens", seed=0):
    torch.manual_seed(seed)
    model_class = BertForTokenClassification if kind == "tokens" else BertForSequenceClassification
    return model_class(BertConfig(**TINY))


def examples(kind="tokens", n=11):
    """Ragged sentences; with rows at some of the tokens (none at all in x4), or one row each."""
    random = np.random.default_rng(7)
    made = []
    for i in range(n):
        length = int(random.integers(2, 12))
        labels = np.where(random.random(length) < 0.6, random.integers(0, len(LABELS), length), IGNORED_LABEL)
        if i == 4:
            labels[:] = IGNORED_LABEL
        label = labels.tolist() if kind == "tokens" else int(random.integers(len(LABELS)))
        made.append({"id": f"x{i}", "input_ids": random.integers(1, 40, length).tolist(), "labels": label})
    return made


def collate(features, width=0):
    width = max(width, *(len(f["input_ids"]) for f in features))

    def pad(values, fill):
        return torch.tensor([list(v) + [fill] * (width - len(v)) for v in values])

    labels = [f["labels"] for f in features]
    return {
        "input_ids": pad([f["input_ids"] for f in features], 3),
        "attention_mask": pad([[1] * len(f["input_ids"]) for f in features], 0),
        "labels": pad(labels, IGNORED_LABEL) if isinstance(labels[0], list) else torch.tensor(labels),
        "example_id": [f["id"] for f in features],
    }


def rows_by_example(model, data):
    """Each example alone, unpadded, its rows picked one at a time: id to ``[rows, C]``."""
    table = {}
    for example in data:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example["input_ids"]])).logits[0]
        if isinstance(example["labels"], int):
            table[example["id"]] = logits[None].numpy()
        else:
            rows = [logits[i].numpy() for i, label in enumerate(example["labels"]) if label != IGNORED_LABEL]
            table[example["id"]] = np.array(rows, np.float32).reshape(-1, len(LABELS))
    return table


class InMemory:
    """The simplest source: a table."""

    labels = LABELS

    def __init__(self, table):
        self.table = table

    def __call__(self, batch):
        return torch.from_numpy(np.concatenate([self.table[i] for i in batch["example_id"]])).float()


class TargetSourceConformance:
    """Inherit, and give a fixture ``source`` made from the fixtures ``model`` and ``data``."""

    tolerance = 1e-5

    @pytest.fixture(params=["tokens", "sentences"])
    def kind(self, request):
        return request.param

    @pytest.fixture
    def model(self, kind):
        return bert(kind).eval()

    @pytest.fixture
    def data(self, kind):
        return examples(kind)

    @pytest.fixture
    def table(self, model, data):
        table = rows_by_example(model, data)
        everything = np.concatenate(list(table.values()))
        # The rows and classes differ by far more than any tolerance, or mixing them up would go unseen.
        assert np.abs(everything[:, None] - everything[None]).max(-1)[~np.eye(len(everything), dtype=bool)].min() > 0.05
        return table

    def check(self, source, table, chosen, **options):
        logits = source(collate(chosen, **options))
        expected = np.concatenate([table[example["id"]] for example in chosen])
        np.testing.assert_allclose(logits.numpy(), expected, rtol=self.tolerance, atol=self.tolerance)

    def test_rows_by_classes_in_float32(self, source, data):
        batch = collate(data)
        logits = source(batch)
        assert logits.dtype == torch.float32
        assert logits.shape == ((batch["labels"] != IGNORED_LABEL).sum(), len(LABELS))

    def test_every_row_at_its_place(self, source, table, data):
        self.check(source, table, data)

    def test_an_example_alone(self, source, table, data):
        for example in data:
            self.check(source, table, [example])

    def test_a_permuted_batch_gives_permuted_rows(self, source, table, data):
        self.check(source, table, [data[i] for i in (7, 2, 9, 4, 0, 10, 3)])

    def test_the_same_example_twice_in_a_batch(self, source, table, data):
        self.check(source, table, [data[5], data[1], data[5]])

    def test_padding_does_not_count(self, source, table, data):
        self.check(source, table, data[:3], width=30)

    def test_classes_in_the_order_of_the_labels(self, source):
        assert source.labels == LABELS

    def test_no_gradients(self, source, data):
        logits = source(collate(data))
        assert not logits.requires_grad
        assert logits.grad_fn is None

    def test_what_it_gives_is_the_callers_own(self, source, table, data):
        source(collate(data)).fill_(1e3)
        self.check(source, table, data)
