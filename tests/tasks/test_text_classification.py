import json
import math

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from transformers import AutoModelForSequenceClassification

from setpoint.errors import DataError
from setpoint.recipe import TASK_NAMES, DataRecipe
from setpoint.tasks import TASKS, make_task
from setpoint.tasks.text_classification import TextClassification
from tasks.wordpiece import CLS, PAD, SEP, wordpiece

A, B, C, D, S = range(5, 10)
ROWS = [{"text": "a bs", "label": "yes"}, {"text": "c", "label": "no"}, {"text": "d", "label": "yes"}]


@pytest.fixture(scope="module")
def tokenizer():
    return wordpiece(["a", "b", "c", "d", "##s"])


def task(**fields):
    return TextClassification(DataRecipe(**{"train": "x", "test": "x"} | fields))


def load(tmp_path, train=ROWS, test=None, **fields):
    files = {"train": train, "validation": train, "test": test or train}
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return task(**{name: str(tmp_path / f"{name}.jsonl") for name in files} | fields).load()


def message(call, *args, **fields):
    with pytest.raises(DataError) as caught:
        call(*args, **fields)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- loading


def test_texts_and_labels_are_read_and_numbered(tmp_path):
    splits = load(tmp_path, test=ROWS[1:])
    assert splits.labels == ("no", "yes")
    assert splits.train.to_dict() == {
        "id": ["train-0", "train-1", "train-2"], "text": ["a bs", "c", "d"], "label": [1, 0, 1],
    }  # fmt: skip
    assert splits.test.to_dict() == {"id": ["test-0", "test-1"], "text": ["c", "d"], "label": [0, 1]}
    assert len(splits.validation) == 3


def test_columns_have_the_names_of_the_recipe(tmp_path):
    rows = [{"premise": "a", "hypothesis": "b", "gold": gold, "text": "wrong"} for gold in "xy"]
    splits = load(tmp_path, rows, text="premise", text_pair="hypothesis", label="gold")
    assert splits.train.to_dict() == {
        "id": ["train-0", "train-1"], "text": ["a"] * 2, "text_pair": ["b"] * 2, "label": [0, 1],
    }  # fmt: skip


def test_numbers_are_labels_in_the_order_of_their_values(tmp_path):
    splits = load(tmp_path, [{"text": "a", "label": n} for n in (10, 9, -1, 9)])
    assert splits.labels == ("-1", "9", "10")
    assert splits.train["label"][:] == [2, 1, 0, 1]


def test_numbers_take_their_names_from_the_data_set(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["yes", "maybe", "no"])})
    made = Dataset.from_dict({"text": list("abc"), "label": [2, 0, 2]}, features=features)
    DatasetDict(train=made, validation=made, test=made).save_to_disk(tmp_path / "d")
    fields = {"dataset": str(tmp_path / "d"), "train": None, "test": None, "validation": "validation"}
    splits = task(**fields).load()
    assert splits.labels == ("yes", "maybe", "no")
    assert splits.test["label"][:] == [2, 0, 2]
    assert task(**fields, labels=("no", "yes")).load().test["label"][:] == [0, 1, 0]


def test_labels_of_the_recipe_count_in_their_order(tmp_path):
    splits = load(tmp_path, labels=("yes", "unseen", "no"))
    assert splits.labels == ("yes", "unseen", "no")
    assert splits.train["label"][:] == [0, 2, 0]


def test_a_label_that_training_does_not_know_is_refused(tmp_path):
    assert message(load, tmp_path, test=[{"text": "a", "label": "perhaps"}]) == (
        "data.test has the label 'perhaps', which is none of no, yes: mend the data, or list every label in data.labels"
    )


@pytest.mark.parametrize("field", ["text", "text_pair", "label"])
def test_a_missing_column_is_refused(tmp_path, field):
    assert message(load, tmp_path, **{field: "x"}) == (
        f"data.train has no column 'x', only text, label: set data.{field}"
    )


@pytest.mark.parametrize("listed", [None, ("no", "yes")])
@pytest.mark.parametrize(("label", "shown"), [(None, "null"), (0.5, "0.5"), ("", "''"), (["yes"], "['yes']")])
def test_an_example_without_a_label_is_no_class_of_its_own(tmp_path, listed, label, shown):
    rows = [*ROWS, {"text": "d", "label": label}]
    assert message(load, tmp_path, rows, labels=listed) == (
        f"example 'train-3' of data.train has {shown} in column 'label': give a name or a whole number"
    )


def test_labels_of_any_kind_may_be_mixed(tmp_path):
    splits = load(tmp_path, [{"text": "a", "label": label} for label in (1, "b", True, 2**70)])
    assert splits.labels == ("1", str(2**70), "True", "b")
    assert splits.train["label"][:] == [0, 3, 2, 1]


@pytest.mark.parametrize(("text", "shown"), [(None, "null"), (3, "3"), (["a"], "['a']"), ("\ud800", r"'\ud800'")])
@pytest.mark.parametrize("field", ["text", "text_pair"])
def test_a_text_that_is_no_string_is_refused(tmp_path, field, text, shown):
    rows = [{"text": "a", "text_pair": "b", "label": label} for label in "xy"]
    assert message(load, tmp_path, rows, [*rows, rows[0] | {field: text}], text_pair="text_pair") == (
        f"example 'test-2' of data.test has {shown} in column '{field}': give a string"
    )


def test_a_data_set_is_checked_like_a_file(tmp_path):
    good = {"text": ["a", "b", None], "label": [0.0, 1.0, None]}
    made = Dataset.from_dict(good)
    DatasetDict(train=made, validation=made, test=made).save_to_disk(tmp_path / "d")
    fields = {"dataset": str(tmp_path / "d"), "train": None, "test": None, "validation": "validation"}
    assert message(task(**fields).load) == "example 'train-2' of data.train has null in column 'text': give a string"
    assert message(task(**fields, limit=2).load) == (
        "example 'train-0' of data.train has 0.0 in column 'label': give a name or a whole number"
    )


def test_training_data_of_one_class_are_refused(tmp_path):
    rows = [{"text": "a", "label": "pos"}] * 3
    assert message(load, tmp_path, rows) == (
        "data.train has one class only, 'pos': give examples of two classes or more, or list them in data.labels"
    )
    assert load(tmp_path, rows, labels=("neg", "pos")).train["label"][:] == [1, 1, 1]


# ---------------------------------------------------------------------------------------------------- encoding


def test_a_text_is_encoded_between_its_special_tokens(tmp_path, tokenizer):
    examples = task().encode(load(tmp_path).train, tokenizer)
    assert examples == [
        {"id": "train-0", "input_ids": [CLS, A, B, S, SEP], "token_type_ids": [0] * 5, "attention_mask": [1] * 5,
         "labels": 1},
        {"id": "train-1", "input_ids": [CLS, C, SEP], "token_type_ids": [0] * 3, "attention_mask": [1] * 3,
         "labels": 0},
        {"id": "train-2", "input_ids": [CLS, D, SEP], "token_type_ids": [0] * 3, "attention_mask": [1] * 3,
         "labels": 1},
    ]  # fmt: skip


def test_a_pair_is_two_texts_with_a_separator_between_and_types_of_their_own(tmp_path, tokenizer):
    rows = [{"text": "a bs", "other": "c", "label": "x"}, {"text": "d", "other": "as a", "label": "y"}]
    splits = load(tmp_path, rows, text_pair="other")
    first, second = task(text_pair="other").encode(splits.train, tokenizer)
    assert first["input_ids"] == [CLS, A, B, S, SEP, C, SEP]
    assert first["token_type_ids"] == [0, 0, 0, 0, 0, 1, 1]
    assert second["input_ids"] == [CLS, D, SEP, A, S, A, SEP]
    assert second["token_type_ids"] == [0, 0, 0, 1, 1, 1, 1]
    assert [first["labels"], second["labels"]] == [0, 1]


def test_a_long_text_is_cut_before_its_last_special_token(tokenizer):
    split = Dataset.from_dict({"id": ["x", "y"], "text": ["a b c d", "a"], "label": [0, 0]})
    assert [e["input_ids"] for e in task(max_length=4).encode(split, tokenizer)] == [[CLS, A, B, SEP], [CLS, A, SEP]]


def test_of_a_long_pair_the_longer_text_is_cut(tokenizer):
    split = Dataset.from_dict({"id": ["x"], "text": ["a b c d"], "text_pair": ["d"], "label": [0]})
    (example,) = task(max_length=6).encode(split, tokenizer)
    assert example["input_ids"] == [CLS, A, B, SEP, D, SEP]


def test_a_batch_is_padded_and_has_a_label_for_each_text(tmp_path, tokenizer):
    examples = task().encode(load(tmp_path).train, tokenizer)
    batch = task().collate(tokenizer)(examples[:2])
    assert batch["input_ids"].tolist() == [[CLS, A, B, S, SEP], [CLS, C, SEP, PAD, PAD]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert torch.equal(batch["labels"], torch.tensor([1, 0]))
    assert batch["example_id"] == ["train-0", "train-1"]
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "labels", "example_id"}


# ---------------------------------------------------------------------------------------------------- metrics


def metrics(predicted, true, names):
    random = np.random.default_rng(0)
    logits = random.normal(size=(len(true), 1, len(names))).astype(np.float32)
    for row, label in zip(logits, predicted, strict=True):
        row[0, label] = row.max() + 1
    return task().metrics(list(logits), [np.array([label]) for label in true], names)


def test_scores_of_two_classes_are_those_by_hand():
    # 3 right yes, 4 right no, 2 false yes, 1 false no
    true = [1, 1, 1, 0, 0, 0, 0, 0, 0, 1]
    predicted = [1, 1, 1, 0, 0, 0, 0, 1, 1, 0]
    got = metrics(predicted, true, ("no", "yes"))
    assert got["accuracy"] == pytest.approx(7 / 10)
    assert got["f1"] == pytest.approx((2 * 4 / (2 * 4 + 3) + 2 * 3 / (2 * 3 + 3)) / 2)
    assert got["mcc"] == pytest.approx((3 * 4 - 2 * 1) / math.sqrt(5 * 4 * 6 * 5))
    assert list(got["classes"])[:2] == ["no", "yes"]
    assert set(got["classes"]) == {"no", "yes", "micro avg", "macro avg", "weighted avg"}
    assert got["classes"]["yes"] == {
        "precision": pytest.approx(3 / 5), "recall": pytest.approx(3 / 4), "f1": pytest.approx(2 / 3), "support": 4,
    }  # fmt: skip
    assert got["classes"]["no"] == {
        "precision": pytest.approx(4 / 5), "recall": pytest.approx(4 / 6), "f1": pytest.approx(8 / 11), "support": 6,
    }  # fmt: skip
    assert got["classes"]["micro avg"] == {"precision": 0.7, "recall": 0.7, "f1": 0.7, "support": 10}
    assert got["classes"]["macro avg"]["precision"] == pytest.approx((3 / 5 + 4 / 5) / 2)
    assert got["classes"]["weighted avg"]["precision"] == pytest.approx((4 * 3 / 5 + 6 * 4 / 5) / 10)


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_many_classes_are_those_of_their_formulas(seed):
    random = np.random.default_rng(seed)
    true = random.integers(0, 4, 60)
    predicted = np.where(random.random(60) < 0.5, true, random.integers(0, 4, 60))
    names = ("a", "b", "c", "d", "never")
    got = metrics(predicted, true, names)
    hits = int((true == predicted).sum())
    said, there = [[int((x == c).sum()) for c in range(5)] for x in (predicted, true)]
    covariance = hits * 60 - sum(p * t for p, t in zip(said, there, strict=True))
    spread = math.sqrt((60**2 - sum(p * p for p in said)) * (60**2 - sum(t * t for t in there)))
    assert got["mcc"] == pytest.approx(covariance / spread)  # Gorodkin 2004, R_K
    f1 = [2 * int(((true == c) & (predicted == c)).sum()) / max(said[c] + there[c], 1) for c in range(5)]
    assert got["f1"] == pytest.approx(sum(f1) / 5)
    assert got["accuracy"] == pytest.approx(hits / 60)
    assert [got["classes"][name]["f1"] for name in names] == pytest.approx(f1)
    assert got["classes"]["macro avg"]["f1"] == pytest.approx(sum(f1) / 5)
    assert got["classes"]["weighted avg"]["f1"] == pytest.approx(
        sum(f * n for f, n in zip(f1, there, strict=True)) / 60
    )
    assert got["classes"]["micro avg"]["support"] == 60


def test_one_answer_to_everything_is_worth_nothing():
    got = metrics([1] * 6, [0, 0, 1, 1, 1, 1], ("a", "b"))
    assert got["mcc"] == 0.0
    assert got["classes"]["a"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2}


# ---------------------------------------------------------------------------------------------------- the task


def test_there_is_a_task_for_every_name_a_recipe_may_give():
    assert list(TASKS) == TASK_NAMES
    assert isinstance(make_task("text-classification", DataRecipe(dataset="x")), TextClassification)
    assert task().model_class() is AutoModelForSequenceClassification
    assert task().metric in metrics([0, 1], [0, 1], ("a", "b"))
