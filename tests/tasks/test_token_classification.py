import json
import warnings

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.tasks import TASKS, make_task
from setpoint.tasks.token_classification import TokenClassification
from setpoint.types import valid_rows
from tasks.wordpiece import CLS, PAD, SEP, UNK, wordpiece

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
SENTENCES = [
    {"tokens": ["Anna", "visits", "New", "York"], "ner_tags": ["B-PER", "O", "B-LOC", "I-LOC"]},
    {"tokens": ["York"], "ner_tags": ["B-LOC"]},
]
ANNA, VISIT, S, NEW, YORK, ER, U, DOT = range(5, 13)


@pytest.fixture(scope="module")
def tokenizer():
    return wordpiece(["anna", "visit", "##s", "new", "york", "##er", "u", "."])


def task(**fields):
    return TokenClassification(DataRecipe(**{"train": "x", "test": "x"} | fields))


def split(*sentences):
    """Sentences of words and class ids, as ``load`` makes them."""
    return Dataset.from_dict({
        "id": [f"train-{i}" for i in range(len(sentences))],
        "tokens": [words for words, _ in sentences],
        "label": [labels for _, labels in sentences],
    })  # fmt: skip


def encoded(tokenizer, *sentences, **fields):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return task(**fields).encode(split(*sentences), tokenizer)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(tmp_path, train, validation=None, test=None, **fields):
    """Load sentences from files, the training ones for splits that are not given."""
    files = {"train": train, "validation": validation or train, "test": test or train}
    return task(**{name: write(tmp_path / f"{name}.jsonl", rows) for name, rows in files.items()} | fields).load()


def message(call, *args, **fields):
    with pytest.raises(DataError) as caught:
        call(*args, **fields)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- loading


def test_words_and_tags_are_read_and_numbered(tmp_path):
    splits = load(tmp_path, SENTENCES, test=SENTENCES[1:])
    assert splits.labels == ("O", "B-LOC", "I-LOC", "B-PER")
    assert splits.train.to_dict() == {
        "id": ["train-0", "train-1"],
        "tokens": [["Anna", "visits", "New", "York"], ["York"]],
        "label": [[3, 0, 1, 2], [1]],
    }
    assert splits.test.to_dict() == {"id": ["test-0"], "tokens": [["York"]], "label": [[1]]}
    assert splits.validation["id"][:] == ["validation-0", "validation-1"]


def test_labels_of_the_recipe_count_in_their_order(tmp_path):
    listed = ("B-PER", "O", "I-LOC", "B-LOC", "unseen")
    splits = load(tmp_path, SENTENCES, labels=listed)
    assert splits.labels == listed
    assert splits.train["label"][0] == [0, 1, 3, 2]


def test_integer_tags_take_their_names_from_the_data_set(tmp_path):
    names = ["I-LOC", "B-LOC", "B-PER", "O", "I-PER"]  # an order of its own, and a tag that does not occur
    features = Features({"words": List(Value("string")), "pos": List(ClassLabel(names=names))})
    made = Dataset.from_dict({"words": [s["tokens"] for s in SENTENCES], "pos": [[2, 3, 1, 0], [1]]}, features=features)
    DatasetDict(train=made, validation=made, test=made).save_to_disk(tmp_path / "d")
    fields = {"dataset": str(tmp_path / "d"), "validation": "validation", "tokens": "words", "tags": "pos"}
    fields |= {"train": None, "test": None}
    splits = task(**fields).load()
    assert splits.labels == tuple(names)
    assert splits.train["label"][:] == [[2, 3, 1, 0], [1]]
    assert splits.train["tokens"][:] == [s["tokens"] for s in SENTENCES]
    assert task(**fields, labels=LABELS).load().train["label"][:] == [[3, 0, 1, 2], [1]]


def test_integer_tags_without_names_are_names_themselves(tmp_path):
    splits = load(tmp_path, [{"tokens": ["a", "b", "c"], "ner_tags": [10, 9, 0]}])
    assert splits.labels == ("0", "9", "10")
    assert splits.train["label"][0] == [2, 1, 0]


def test_an_example_with_another_number_of_tags_is_named(tmp_path):
    wrong = [SENTENCES[0], {"tokens": ["a", "b"], "ner_tags": ["O", "O", "O"]}]
    assert message(load, tmp_path, SENTENCES, test=wrong) == (
        "example 'test-1' has 2 tokens but 3 tags: give one tag a token"
    )


def test_a_tag_that_training_does_not_know_is_refused(tmp_path):
    other = [{"tokens": ["a"], "ner_tags": ["B-ORG"]}]
    assert message(load, tmp_path, SENTENCES, validation=other) == (
        "data.validation has the label 'B-ORG', which is none of O, B-LOC, I-LOC, B-PER: "
        "mend the data, or list every label in data.labels"
    )


@pytest.mark.parametrize("field", ["tokens", "tags"])
def test_a_missing_column_is_refused(tmp_path, field):
    assert message(load, tmp_path, SENTENCES, **{field: "x"}) == (
        f"data.train has no column 'x', only tokens, ner_tags: set data.{field}"
    )


@pytest.mark.parametrize(
    ("field", "value", "shown", "mend"),
    [
        ("tokens", None, "null", "give a list of strings"),
        ("tokens", "a b", "'a b'", "give a list of strings"),
        ("tokens", ["a", None], "['a', None]", "give a list of strings"),
        ("tokens", ["a", 3], "['a', 3]", "give a list of strings"),
        ("tokens", ["a", "\udc80"], r"['a', '\udc80']", "give a list of strings"),
        ("ner_tags", None, "null", "give a list of names or whole numbers"),
        ("ner_tags", ["O", None], "['O', None]", "give a list of names or whole numbers"),
        ("ner_tags", ["O", 0.5], "['O', 0.5]", "give a list of names or whole numbers"),
        ("ner_tags", "O O", "'O O'", "give a list of names or whole numbers"),
    ],
)
def test_what_is_no_list_of_words_and_tags_is_refused(tmp_path, field, value, shown, mend):
    wrong = [SENTENCES[0], {"tokens": ["a", "b"], "ner_tags": ["O", "O"]} | {field: value}]
    assert message(load, tmp_path, SENTENCES, test=wrong) == (
        f"example 'test-1' of data.test has {shown} in column '{field}': {mend}"
    )


def test_sentences_without_a_word_are_no_training_data(tmp_path):
    assert message(load, tmp_path, [{"tokens": [], "ner_tags": []}]) == (
        "data.train has no class: give examples of two classes or more, or list them in data.labels"
    )


# ---------------------------------------------------------------------------------------------------- encoding


def test_a_words_label_is_at_its_first_piece_and_nowhere_else(tokenizer):
    (example,) = encoded(tokenizer, (["Anna", "visits", "New", "Yorkers"], [3, 0, 1, 2]))
    assert example == {
        "id": "train-0",
        "input_ids": [CLS, ANNA, VISIT, S, NEW, YORK, ER, S, SEP],
        "token_type_ids": [0] * 9,
        "attention_mask": [1] * 9,
        "labels": [-100, 3, 0, -100, 1, 2, -100, -100, -100],
    }


def test_a_word_that_the_tokenizer_cuts_at_signs_is_still_one_word(tokenizer):
    (example,) = encoded(tokenizer, (["U.", "u.u", "什么", "u"], [1, 2, 3, 4]))
    assert example["input_ids"] == [CLS, U, DOT, U, DOT, U, UNK, UNK, U, SEP]
    assert example["labels"] == [-100, 1, -100, 2, -100, -100, 3, -100, 4, -100]


def test_the_same_word_twice_in_a_row_is_two_words(tokenizer):
    (example,) = encoded(tokenizer, (["York", "York", "visits", "visits"], [1, 2, 3, 4]))
    assert example["labels"] == [-100, 1, 2, 3, -100, 4, -100, -100]


def test_each_sentence_has_its_own_labels_in_the_order_of_the_split(tokenizer):
    examples = encoded(tokenizer, (["York"], [1]), ([], []), (["visits", "Anna"], [0, 3]))
    assert [e["id"] for e in examples] == ["train-0", "train-1", "train-2"]
    assert [e["labels"] for e in examples] == [[-100, 1, -100], [-100, -100], [-100, 0, -100, 3, -100]]


@pytest.mark.parametrize("nothing", ["", " ", "\u200b", "\xa0", "\x00", "\N{COMBINING ACUTE ACCENT}"])
def test_a_word_of_which_nothing_is_left_has_its_row(tokenizer, nothing):
    example, other = encoded(tokenizer, ([nothing, "York", nothing, "Anna", nothing], [1, 2, 3, 4, 0]), (["u"], [2]))
    assert example["input_ids"] == [CLS, UNK, YORK, UNK, ANNA, UNK, SEP]
    assert example["labels"] == [-100, 1, 2, 3, 4, 0, -100]
    assert other["input_ids"] == [CLS, U, SEP]


def test_without_a_token_for_the_unknown_such_a_word_is_a_sign_that_is_known():
    pieces = BPE({"a": 0, ".": 1, "b": 2, "ab": 3}, [("a", "b")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(pieces), pad_token="[PAD]")
    (example,) = encoded(tokenizer, (["ab", "x", "b"], [1, 2, 3]))
    assert example["input_ids"] == [3, 1, 2]
    assert example["labels"] == [1, 2, 3]


def test_rows_are_the_first_words_whatever_the_tokenizer(tokenizer):
    words = ["Anna", "\u200b", "visits", "", "York", "u"]
    split_of = split((words, list(range(6))))
    letters = wordpiece([*"avisityorknu", *(f"##{sign}" for sign in "avisityorknu")])
    for length in range(3, 20):
        for one in (tokenizer, letters):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                (example,) = task(max_length=length).encode(split_of, one)
            rows = [label for label in example["labels"] if label != -100]
            assert rows == list(range(len(rows)))
            cut = 6 - len(rows)
            said = [f"{cut} words lie beyond data.max_length={length} and are left out"] if cut else []
            assert [str(w.message) for w in caught] == said


@pytest.mark.parametrize(
    ("max_length", "labels", "cut"),
    [
        (9, [3, 0, -100, 1, 2, -100, -100], 0),
        (8, [3, 0, -100, 1, 2, -100], 0),  # a word that loses its last piece keeps its row
        (7, [3, 0, -100, 1, 2], 0),
        (6, [3, 0, -100, 1], 1),
        (5, [3, 0, -100], 2),
        (4, [3, 0], 2),
        (3, [3], 3),
    ],
)
def test_words_beyond_the_longest_length_have_no_row_and_are_counted(tokenizer, max_length, labels, cut):
    sentences = split((["Anna", "visits", "New", "Yorkers"], [3, 0, 1, 2]), (["Anna"], [3]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first, second = task(max_length=max_length).encode(sentences, tokenizer)
    assert first["labels"] == [-100, *labels, -100]
    assert len(first["input_ids"]) == len(first["labels"]) == max_length
    assert first["input_ids"][-1] == SEP
    assert second["labels"] == [-100, 3, -100]
    expected = [f"{cut} words lie beyond data.max_length={max_length} and are left out"] if cut else []
    assert [str(w.message) for w in caught] == expected


def test_the_words_that_are_cut_are_counted_over_all_sentences(tokenizer):
    with pytest.warns(UserWarning, match=r"^5 words lie beyond data.max_length=4 and are left out$"):
        task(max_length=4).encode(split((["u"] * 3, [0] * 3), (["u"] * 6, [0] * 6), (["u"], [0])), tokenizer)


# ---------------------------------------------------------------------------------------------------- batches


def test_a_batch_is_padded_with_what_counts_for_nothing(tokenizer):
    examples = encoded(tokenizer, (["Anna", "visits"], [3, 0]), (["York"], [1]))
    batch = task().collate(tokenizer)(examples)
    expected = {
        "input_ids": [[CLS, ANNA, VISIT, S, SEP], [CLS, YORK, SEP, PAD, PAD]],
        "token_type_ids": [[0] * 5] * 2,
        "attention_mask": [[1] * 5, [1, 1, 1, 0, 0]],
        "labels": [[-100, 3, 0, -100, -100], [-100, 1, -100, -100, -100]],
    }
    assert batch.pop("example_id") == ["train-0", "train-1"]
    assert {name: tensor.tolist() for name, tensor in batch.items()} == expected
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_a_batch_is_as_long_as_its_longest_sentence(tokenizer):
    examples = encoded(tokenizer, (["u"] * 9, [0] * 9), (["u"] * 3, [0] * 3), (["u"], [0]))
    collate = task().collate(tokenizer)
    assert collate(examples[1:])["labels"].shape == (2, 5)
    assert collate(examples[2:])["input_ids"].tolist() == [[CLS, U, SEP]]


def test_a_tokenizer_without_token_types_gives_none():
    tokenizer = wordpiece(["u"], model_input_names=["input_ids", "attention_mask"])
    batch = task().collate(tokenizer)(encoded(tokenizer, (["u"], [1])))
    assert set(batch) == {"input_ids", "attention_mask", "labels", "example_id"}


def test_token_types_are_padded_with_zeros(tokenizer):
    pair = {"id": "a", "input_ids": [1, 2, 3], "token_type_ids": [1, 1, 1], "labels": [1, 1, 1]}
    single = {"id": "b", "input_ids": [1], "token_type_ids": [1], "labels": [1]}
    assert task().collate(tokenizer)([pair, single])["token_type_ids"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_the_rows_of_a_batch_are_the_words_of_its_sentences(tokenizer, tmp_path):
    splits = load(tmp_path, SENTENCES)
    batch = task().collate(tokenizer)(task().encode(splits.train, tokenizer))
    tags = [splits.labels[i] for i in batch["labels"][valid_rows(batch)]]
    assert tags == SENTENCES[0]["ner_tags"] + SENTENCES[1]["ner_tags"]


# ---------------------------------------------------------------------------------------------------- metrics


def logits(rows, sure=9.0):
    """Logits ``[rows, C]`` whose greatest is at the given classes."""
    made = np.tile(np.linspace(0, 1, len(LABELS), dtype=np.float32), (len(rows), 1))
    for row, label in zip(made, rows, strict=True):
        row[label] = sure
    return made


def metrics(predicted, true, names=LABELS):
    labels = [np.array(row, dtype=np.int64) for row in true]
    return task().metrics([logits(row) for row in predicted], labels, names)


def scores(precision, recall, f1, support):
    return {"precision": pytest.approx(precision), "recall": pytest.approx(recall), "f1": pytest.approx(f1),
            "support": support}  # fmt: skip


# O B-LOC I-LOC B-PER I-PER = 0 1 2 3 4
TRUE = [[3, 4, 0, 1, 2, 0], [0, 1, 0], [1], [0, 0]]
PREDICTED = [
    [3, 4, 0, 1, 0, 0],  # the person right, the place too short
    [0, 1, 3],           # the place right, a person too many
    [2],                 # a place that starts with I is a place all the same
    [0, 0],
]  # fmt: skip


def test_scores_are_of_whole_entities():
    got = metrics(PREDICTED, TRUE)
    # True: PER, LOC, LOC, LOC. Predicted: PER, LOC (short), LOC, PER, LOC. Right: PER, LOC, LOC.
    assert got["precision"] == pytest.approx(3 / 5)
    assert got["recall"] == pytest.approx(3 / 4)
    assert got["f1"] == pytest.approx(2 * 3 / (5 + 4))
    assert got["accuracy"] == pytest.approx(9 / 12)
    assert got["entities"]["LOC"] == scores(2 / 3, 2 / 3, 2 / 3, 3)
    assert got["entities"]["PER"] == scores(1 / 2, 1, 2 / 3, 1)
    assert got["entities"]["micro avg"] == scores(3 / 5, 3 / 4, 2 / 3, 4)
    assert got["entities"]["macro avg"] == scores(7 / 12, 5 / 6, 2 / 3, 4)
    assert got["entities"]["weighted avg"] == scores(5 / 8, 3 / 4, 2 / 3, 4)


def test_the_token_table_counts_tokens_and_o_too():
    table = metrics(PREDICTED, TRUE)["tokens"]
    assert list(table)[:5] == list(LABELS)
    assert set(table) == {*LABELS, "micro avg", "macro avg", "weighted avg"}
    assert table["O"] == scores(5 / 6, 5 / 6, 5 / 6, 6)
    assert table["B-LOC"] == scores(1, 2 / 3, 4 / 5, 3)
    assert table["I-LOC"] == scores(0, 0, 0, 1)
    assert table["B-PER"] == scores(1 / 2, 1, 2 / 3, 1)
    assert table["I-PER"] == scores(1, 1, 1, 1)
    assert table["micro avg"] == scores(3 / 4, 3 / 4, 3 / 4, 12)
    assert table["macro avg"] == scores(
        (5 / 6 + 1 + 0 + 1 / 2 + 1) / 5, (5 / 6 + 2 / 3 + 0 + 1 + 1) / 5, (5 / 6 + 4 / 5 + 0 + 2 / 3 + 1) / 5, 12
    )
    assert table["weighted avg"] == scores(
        (5 + 3 + 0 + 1 / 2 + 1) / 12, (5 + 2 + 0 + 1 + 1) / 12, (5 + 12 / 5 + 0 + 2 / 3 + 1) / 12, 12
    )


def random_sentences(seed, n=40, labels=5):
    random = np.random.default_rng(seed)
    true = [random.integers(0, labels, random.integers(0, 9)).tolist() for _ in range(n)]
    wrong = [random.random(len(row)) < 0.4 for row in true]
    predicted = [
        [int(random.integers(0, labels)) if w else t for t, w in zip(row, off, strict=True)]
        for row, off in zip(true, wrong, strict=True)
    ]
    return predicted, true


def plain(table):
    """A report of seqeval under the names of this project."""
    return {
        name: scores(*(row[key] for key in ("precision", "recall", "f1-score")), int(row["support"]))
        for name, row in table.items()
    }


@pytest.mark.parametrize("seed", range(4))
def test_entity_scores_are_those_of_seqeval(seed):
    predicted, true = random_sentences(seed)
    got = metrics(predicted, true)
    tags = [[[LABELS[i] for i in row] for row in rows] for rows in (true, predicted)]
    assert got["f1"] == pytest.approx(f1_score(*tags))
    assert got["precision"] == pytest.approx(precision_score(*tags))
    assert got["recall"] == pytest.approx(recall_score(*tags))
    assert 0 < got["f1"] < 1
    assert got["entities"] == plain(classification_report(*tags, output_dict=True))


@pytest.mark.parametrize("part", [slice(0, None, 3), slice(2, 5), slice(4, 4)])
def test_a_part_is_scored_as_if_it_were_all(part):
    predicted, true = random_sentences(0)
    scores_of = task().scores([logits(row) for row in predicted], [np.array(row) for row in true], LABELS)
    tags = [[[LABELS[i] for i in row] for row in rows[part]] for rows in (true, predicted)]
    for name, score in {"f1": f1_score, "precision": precision_score, "recall": recall_score}.items():
        assert scores_of[name](part) == pytest.approx(score(*tags) if tags[0] else 0.0)


def counted(predicted, true, classes):
    """The table by counting, one token at a time."""
    pairs = [pair for rows in zip(predicted, true, strict=True) for pair in zip(*rows, strict=True)]
    table = {}
    for c, name in enumerate(classes):
        hits = sum(1 for p, t in pairs if p == t == c)
        said, there = sum(1 for p, _ in pairs if p == c), sum(1 for _, t in pairs if t == c)
        precision, recall = hits / said if said else 0.0, hits / there if there else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        table[name] = (precision, recall, f1, there)
    share = sum(1 for p, t in pairs if p == t) / len(pairs)
    rows = list(table.values())
    macro = [sum(row[k] for row in rows) / len(classes) for k in range(3)]
    weighted = [sum(row[k] * row[3] for row in rows) / len(pairs) for k in range(3)]
    table["micro avg"] = (share, share, share, len(pairs))
    table["macro avg"], table["weighted avg"] = (*macro, len(pairs)), (*weighted, len(pairs))
    return {name: scores(*row) for name, row in table.items()}


@pytest.mark.parametrize("labels", [5, 3], ids=["all classes", "two never seen nor said"])
@pytest.mark.parametrize("seed", range(3))
def test_the_token_table_is_that_of_counting(seed, labels):
    predicted, true = random_sentences(seed, labels=labels)
    got = metrics(predicted, true)
    assert got["tokens"] == counted(predicted, true, LABELS)
    assert got["accuracy"] == pytest.approx(got["tokens"]["micro avg"]["f1"])


def test_perfect_and_useless_predictions_are_the_ends_of_the_scale():
    assert metrics(TRUE, TRUE)["f1"] == metrics(TRUE, TRUE)["accuracy"] == 1.0
    nothing = metrics([[0] * len(row) for row in TRUE], TRUE)
    assert nothing["f1"] == nothing["precision"] == nothing["recall"] == 0.0
    assert nothing["accuracy"] == pytest.approx(6 / 12)


def test_sentences_without_rows_change_nothing():
    empty = [[], *PREDICTED[:2], [], *PREDICTED[2:], []], [[], *TRUE[:2], [], *TRUE[2:], []]
    assert metrics(*empty) == metrics(PREDICTED, TRUE)


def test_an_entity_does_not_run_on_into_the_next_sentence():
    assert metrics([[3], [4]], [[3], [4]])["entities"]["PER"]["support"] == 2
    assert metrics([[3, 4]], [[3, 4]])["entities"]["PER"]["support"] == 1


def test_no_warning_of_an_entity_that_was_never_predicted_is_shown():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics([[0, 0]], [[3, 4]])


# ---------------------------------------------------------------------------------------------------- the task


def test_the_task_goes_by_its_name():
    assert isinstance(make_task("token-classification", DataRecipe(dataset="x")), TokenClassification)
    assert all(name == kind.name for name, kind in TASKS.items())
    assert task().model_class() is AutoModelForTokenClassification
    assert task().metric in metrics(PREDICTED, TRUE)


def test_what_turns_text_into_inputs_is_on_record():
    assert task(max_length=77).preprocessing() == {
        "task": "token-classification", "max_length": 77, "augment": None,
    }  # fmt: skip


def test_text_has_no_augmentation():
    assert message(task().augment, {}, torch.Generator(), (), ()) == (
        "task 'token-classification' has no augmentation: remove data.augment"
    )
