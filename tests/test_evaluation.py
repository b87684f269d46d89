import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from setpoint import FrozenTeacher, evaluation
from setpoint.evaluation import Outputs, evaluate, latency_ms, parameters, predict, size_bytes
from setpoint.recipe import DataRecipe
from setpoint.tasks.agreement import agreement
from setpoint.tasks.base import label_rows
from setpoint.tasks.image_classification import ImageClassification
from setpoint.tasks.text_classification import TextClassification
from setpoint.tasks.token_classification import TokenClassification
from setpoint.vision import SmallConvNetConfig, SmallConvNetForImageClassification
from targets.conformance import LABELS, TINY, bert, collate, examples, rows_by_example


class Watched:
    """A source that keeps the batches it was asked for."""

    def __init__(self, source):
        self.source, self.labels, self.model, self.batches = source, source.labels, source.model, []

    def __call__(self, batch):
        self.batches.append(batch)
        return self.source(batch)

    def run(self, batch):
        self.batches.append(batch)
        return self.source.run(batch)


def frozen(kind="tokens", seed=0):
    return Watched(FrozenTeacher(bert(kind, seed), LABELS))


# ---------------------------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("kind", ["tokens", "sentences"])
def test_predictions_are_in_order_and_the_same_as_one_by_one(kind, batch_size):
    data = examples(kind)
    table = rows_by_example(bert(kind).eval(), data)
    rows = predict(frozen(kind), data, collate, batch_size)
    assert len(rows) == len(data)
    for example, row in zip(data, rows, strict=True):
        assert row.dtype == np.float32
        assert row.shape == table[example["id"]].shape
        np.testing.assert_allclose(row, table[example["id"]], rtol=1e-5, atol=1e-5)
    firsts = np.stack([row[0] for row in rows if len(row)])
    assert np.abs(firsts[1:] - firsts[:-1]).max(-1).min() > 0.01  # a mixed-up order would show


def test_predictions_follow_the_examples_when_these_change_places():
    data = examples()
    rows = predict(frozen(), data, collate, 3)
    order = [7, 0, 4, 10, 2]
    for i, row in zip(order, predict(frozen(), [data[i] for i in order], collate, 3), strict=True):
        np.testing.assert_allclose(row, rows[i], rtol=1e-5, atol=1e-5)


def test_little_is_padded_to_predict():
    data, source = examples(), frozen()
    predict(source, data, collate, batch_size=3)
    lengths = sorted(len(example["input_ids"]) for example in data)
    shapes = [tuple(batch["input_ids"].shape) for batch in source.batches]
    assert shapes == [(3, lengths[2]), (3, lengths[5]), (3, lengths[8]), (2, lengths[10])]


def test_images_are_predicted_in_order_too():
    torch.manual_seed(0)
    net = SmallConvNetForImageClassification(SmallConvNetConfig(widths=(4,), num_labels=3)).eval()
    random = torch.Generator().manual_seed(1)
    data = [{"id": str(i), "pixel_values": torch.rand(1, 4, 4, generator=random), "labels": i % 3} for i in range(7)]
    task = ImageClassification(DataRecipe(dataset="digits"))
    rows = predict(FrozenTeacher(net, ("a", "b", "c")), data, task.collate(None), batch_size=3)
    with torch.no_grad():
        expected = [net(pixel_values=example["pixel_values"][None]).logits.numpy() for example in data]
    assert [row.shape for row in rows] == [(1, 3)] * 7
    np.testing.assert_allclose(np.stack(rows), expected, rtol=1e-5, atol=1e-6)


def test_nothing_is_predicted_of_nothing():
    assert predict(frozen(), [], collate) == []


def test_the_labels_of_rows_are_those_that_count():
    data = [{"labels": [-100, 2, -100, 0]}, {"labels": [-100, -100]}, {"labels": 3}, {"labels": torch.tensor(1)}]
    assert [row.tolist() for row in label_rows(data)] == [[2, 0], [], [3], [1]]


# ---------------------------------------------------------------------------------------------------- agreement


def by_hand(student, teacher):
    """Row by row, class by class, in double precision."""
    same, total, count = 0, 0.0, 0
    for z, v in zip(itertools.chain(*student), itertools.chain(*teacher), strict=True):
        z, v = [float(x) for x in z], [float(x) for x in v]
        log_q = [x - max(z) - math.log(sum(math.exp(y - max(z)) for y in z)) for x in z]
        log_p = [x - max(v) - math.log(sum(math.exp(y - max(v)) for y in v)) for x in v]
        total += sum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))
        same += z.index(max(z)) == v.index(max(v))
        count += 1
    return {"top1": same / count, "kl": total / count}


def ragged(seed, spread, dtype=np.float32, lengths=(3, 0, 7, 1, 12)):
    random = np.random.default_rng(seed)
    return [(spread * random.normal(size=(n, 4))).astype(dtype) for n in lengths]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("z_spread", "v_spread"), [(0.1, 0.1), (1, 3), (3, 1), (30, 200)])
def test_agreement_is_its_formula_averaged_over_rows(z_spread, v_spread, dtype):
    student, teacher = ragged(0, z_spread, dtype), ragged(1, v_spread, dtype)
    got, expected = agreement(student, teacher), by_hand(student, teacher)
    assert got == {"top1": pytest.approx(expected["top1"]), "kl": pytest.approx(expected["kl"], rel=1e-9)}
    assert 0 < got["top1"] < 1
    assert by_hand(teacher, student)["kl"] != pytest.approx(expected["kl"], rel=1e-3)  # and not the other way round


def test_a_model_agrees_with_itself_and_with_its_logits_shifted():
    rows = ragged(0, 2)
    assert agreement(rows, rows) == {"top1": 1.0, "kl": 0.0}
    shifted = agreement([row + 5 for row in rows], rows)
    assert shifted["top1"] == 1.0
    assert shifted["kl"] == pytest.approx(0, abs=1e-9)


def test_small_disagreement_is_not_lost_in_rounding():
    teacher = [np.array([[10.0, 0.0, -10.0]])]
    student = [np.array([[10.0, 1e-3, -10.0]])]
    assert agreement(student, teacher)["kl"] == pytest.approx(by_hand(student, teacher)["kl"], rel=1e-6)


# ---------------------------------------------------------------------------------------------------- costs


def test_shared_weights_count_once():
    encoder, decoder = nn.Linear(4, 6, bias=False), nn.Linear(6, 4)
    assert parameters(nn.ModuleList([encoder, decoder])) == 24 + 24 + 4
    twice = nn.ModuleList([decoder, encoder, decoder])
    assert parameters(twice) == 24 + 24 + 4
    untied = nn.ModuleList([nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)])
    assert parameters(untied) == 48
    untied[1].weight = untied[0].weight
    assert parameters(untied) == 24


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_models_output_is_its_embeddings_where_they_are_tied(tied):
    model = BertForMaskedLM(BertConfig(**TINY, tie_word_embeddings=tied))
    distinct = {p.data_ptr(): p.numel() for p in model.parameters()}
    assert parameters(model) == sum(distinct.values())
    body = parameters(model.bert)
    head = 16 * 16 + 16 + 2 * 16 + 40  # a layer, its norm, the output's bias
    assert parameters(model) == body + head + (0 if tied else 40 * 16 + 40)  # untied, that bias is twice there


def test_frozen_weights_and_odd_precisions_count():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 5)).half().requires_grad_(False)
    assert parameters(net) == 3 * 2 + 2 + 2 * 5 + 5
    assert size_bytes(net, None) == 2 * 23


def test_the_size_is_that_of_the_weights_files(tmp_path):
    model = bert()
    model.save_pretrained(tmp_path / "one")
    assert size_bytes(model, tmp_path / "one") == (tmp_path / "one/model.safetensors").stat().st_size
    model.save_pretrained(tmp_path / "many", max_shard_size="4KB")
    shards = [file for file in (tmp_path / "many").iterdir() if file.suffix == ".safetensors"]
    assert len(shards) > 1
    assert size_bytes(model, tmp_path / "many") == sum(file.stat().st_size for file in shards)
    model.half().save_pretrained(tmp_path / "half")
    assert size_bytes(model, tmp_path / "half") == (tmp_path / "half/model.safetensors").stat().st_size
    assert size_bytes(model, tmp_path / "half") < 0.75 * size_bytes(model, tmp_path / "one")


def test_without_a_folder_the_size_is_that_of_the_tensors(tmp_path):
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    # weight and bias; scale, shift, mean and variance; and the count of batches, of 8 bytes
    assert size_bytes(net, None) == 4 * (6 + 2 + 4 * 2) + 8
    assert size_bytes(net, tmp_path) == size_bytes(net, None)  # a folder with no weights in it


def test_latency_is_the_median_after_a_warm_up(monkeypatch):
    durations = iter([900.0, 800.0, 700.0, 5.0, 1.0, 100.0, 2.0, 3.0])
    now, calls = [0.0], []

    def call():
        calls.append(next(durations))
        now[0] += calls[-1]

    monkeypatch.setattr(evaluation, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert latency_ms(call, repeats=5) == pytest.approx(3000.0)
    assert calls == [900.0, 800.0, 700.0, 5.0, 1.0, 100.0, 2.0, 3.0]


def test_latency_is_above_zero():
    assert latency_ms(lambda: sum(range(1000)), repeats=3) > 0


# ---------------------------------------------------------------------------------------------------- the record


def test_the_record_of_a_tagger_is_made_of_its_parts(tmp_path):
    data, source = examples(), frozen()
    source.model.save_pretrained(tmp_path)
    task = TokenClassification(DataRecipe(dataset="x"))
    table = rows_by_example(bert().eval(), data)
    rows = [table[example["id"]] for example in data]
    teacher_rows = [row + np.random.default_rng(0).normal(size=row.shape).astype(np.float32) for row in rows]
    record = evaluate(source, tmp_path, task, data, collate, teacher=Outputs(teacher_rows, teacher_rows))
    assert set(record) == {"metrics", "parameters", "bytes", "latency_ms", "agreement"}
    labels = [np.array([i for i in example["labels"] if i != -100], int) for example in data]
    assert record["metrics"] == task.metrics(rows, labels, LABELS)
    right = sum(int((row.argmax(-1) == true).sum()) for row, true in zip(rows, labels, strict=True))
    assert record["metrics"]["accuracy"] == pytest.approx(right / sum(map(len, labels)))
    assert record["parameters"] == sum(p.numel() for p in source.model.parameters())
    assert record["bytes"] == (tmp_path / "model.safetensors").stat().st_size
    assert record["latency_ms"] > 0
    assert record["agreement"] == pytest.approx(by_hand(rows, teacher_rows), rel=1e-4)


def test_there_is_no_agreement_without_a_teacher():
    task = TextClassification(DataRecipe(dataset="x"))
    record = evaluate(frozen("sentences"), None, task, examples("sentences"), collate)
    assert set(record) == {"metrics", "parameters", "bytes", "latency_ms"}
    assert record["bytes"] == 4 * record["parameters"]


def test_what_is_timed_is_one_example_of_median_length():
    data, source = examples(), frozen()
    evaluate(source, None, TokenClassification(DataRecipe(dataset="x")), data, collate)
    timed = [batch for batch in source.batches if len(batch["example_id"]) == 1]
    assert len(timed) > 10
    assert {batch["example_id"][0] for batch in timed} == {timed[0]["example_id"][0]}
    lengths = sorted(len(example["input_ids"]) for example in data)
    assert timed[0]["input_ids"].shape == (1, lengths[5])
    assert lengths[0] < lengths[5] < lengths[10]


def test_shared_tensors_weigh_once_without_a_folder():
    net = nn.ModuleList([nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)])
    net[1].weight = net[0].weight
    assert size_bytes(net, None) == 4 * 24


def test_words_that_one_tokenizer_cut_off_are_not_compared():
    student = [np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 0.0]]), np.array([[0.0, 1.0]])]
    teacher = [np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [9.0, 0.0]])]
    common = agreement([student[0][:1], student[1]], [teacher[0], teacher[1][:1]])
    assert agreement(student, teacher) == common
    assert common["top1"] == 0.5
