"""Batches of like length, of whatever has a length."""

import numpy as np
import torch

from setpoint.evaluation import predict
from setpoint.targets.building import build_shards
from setpoint.targets.shards import new_manifest, read_shard


class Watched:
    """A source that remembers how long the batches were."""

    labels = ("a", "b")

    def __init__(self):
        self.seen = []

    def __call__(self, batch):
        self.seen.append(batch["input_values"].shape[1])
        return torch.stack([torch.tensor([float(len(x)), 0.0]) for x in batch["input_values"]])


def collate(examples):
    values = torch.nn.utils.rnn.pad_sequence([e["input_values"] for e in examples], batch_first=True)
    return {"input_values": values, "labels": torch.zeros(len(examples), dtype=torch.long),
            "example_id": [e["id"] for e in examples]}  # fmt: skip


def recordings():
    lengths = [9, 2, 8, 1, 7, 3]
    return [{"id": f"e{i}", "input_values": torch.ones(n), "labels": 0} for i, n in enumerate(lengths)]


def test_recordings_of_like_length_are_read_together():
    source = Watched()
    rows = predict(source, recordings(), collate, 2, progress=False)
    assert source.seen == [2, 7, 9]
    assert [row[0, 0] for row in rows] == [9, 2, 9, 2, 7, 7]  # in the order of the examples


def test_a_store_reads_recordings_of_like_length_together(tmp_path):
    from setpoint.targets.fingerprint import Fingerprint

    source = Watched()
    manifest = new_manifest(Fingerprint("", "", "", ""), source.labels, "float32", 6, 0)
    build_shards(tmp_path, manifest, source, recordings(), collate, 3, False)
    assert source.seen == [3, 9]
    ids, _, values = read_shard(tmp_path / "shard-00000.arrow")
    assert list(ids) == [f"e{i}" for i in range(6)]
    np.testing.assert_array_equal(values.reshape(6, 2)[:, 0], [9, 3, 9, 3, 9, 3])
