"""Questions on texts: windows, the logits of positions, and the scores of answers over all windows of a question."""

import json
import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import BertConfig, BertForQuestionAnswering

from setpoint.errors import DataError, SetpointWarning
from setpoint.recipe import DataRecipe
from setpoint.targets.fingerprint import Fingerprint
from setpoint.targets.store import TargetStore
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tasks import make_task
from setpoint.tasks.question_answering import QuestionAnswering
from setpoint.tasks.windows import Asked, cut_windows
from tasks.wordpiece import CLS, PAD, SEP, wordpiece

WORDS = ["who", "where", "anna", "bob", "lives", "in", "rome", "oslo", "and", "##s"]
WHO, WHERE, ANNA, BOB, LIVES, IN, ROME, OSLO, AND, S = range(5, 15)
TEXT = "Anna lives in Rome and Bob lives in Oslo"


def row(context, *answers, question="where", **more):
    starts = [context.index(answer) for answer in answers]
    return {"question": question, "context": context, "answers": {"text": [*answers], "answer_start": starts}} | more


@pytest.fixture(scope="module")
def tokenizer():
    return wordpiece(WORDS)


def task(**fields):
    return QuestionAnswering(DataRecipe(**{"train": "x", "test": "x", "max_length": 16, "stride": 2} | fields))


def load(tmp_path, rows, **fields):
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    files = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "x.jsonl"))
    return task(**files, **fields).load()


def encode(asked, tokenizer, **fields):
    one = task(**fields)
    return one, one._encoded(asked, tokenizer)


# ---------------------------------------------------------------------------------------------------- loading


def test_questions_are_read_from_rows_and_data_sets(tmp_path):
    rows = [row(TEXT, "Rome", id="q1"), row(TEXT, "Bob", "Bob lives", question="who", id="q2")]
    splits = load(tmp_path, rows)
    assert splits.labels == tuple(map(str, range(16)))
    assert splits.head is None
    wanted = {
        "id": ["test-q1", "test-q2"], "question": ["where", "who"], "context": [TEXT] * 2,
        "answers": [["Rome"], ["Bob", "Bob lives"]], "start": [14, 23],
    }  # fmt: skip
    assert splits.test.to_dict() == wanted
    made = Dataset.from_list(rows)
    DatasetDict(train=made, validation=made, test=made).save_to_disk(tmp_path / "d")
    made.to_parquet(tmp_path / "x.parquet")
    files = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "x.parquet"))
    named = {"dataset": str(tmp_path / "d"), "train": "train", "test": "test", "validation": "validation"}
    for fields in (named, files):
        assert task(**fields).load().test.to_dict() == wanted


def test_squad_is_read_as_it_is_published(tmp_path):
    asked = {"id": "q", "question": "where", "answers": [{"text": "Rome", "answer_start": 14}]}
    articles = [
        {"title": f"t{i}", "paragraphs": [{"context": TEXT, "qas": [asked | {"id": f"q{i}"}]}]} for i in range(10)
    ]
    (tmp_path / "x.json").write_text(json.dumps({"version": "1.1", "data": articles}))
    splits = QuestionAnswering(
        DataRecipe(train=str(tmp_path / "x.json"), split_by="title", max_length=16, stride=2)
    ).load()
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [7, 1, 2]
    assert splits.validation.to_dict()["answers"] == [["Rome"]]


@pytest.mark.parametrize(
    ("rows", "fields", "sentence"),
    [
        ([row(TEXT)], {}, "example 'train-0' of data.train has no answer: set data.impossible to true, or remove it"),
        ([row(TEXT, "Rome") | {"context": "Rome"}], {}, "has the answer 'Rome', but its context has '' at 14"),
        ([row(TEXT, "Rome") | {"answers": "Rome"}], {}, "'Rome' in column 'answers'"),
        ([row(TEXT, "Rome") | {"question": 5}], {}, "has 5 in column 'question': give a string"),
        ([{"question": "who", "context": "x"}], {}, "data.train has no column 'answers'"),
        ([row(TEXT, "Rome")], {"stride": 9},
         "data.stride is 9 while data.max_length is 16: give a max_length of 18 or more, or a smaller stride"),
        ([row(TEXT, "Rome")], {"transfer": {"files": ["x"]}},
         "data.transfer is given for the task extractive-question-answering, which has none: remove it"),
    ],
)  # fmt: skip
def test_data_that_are_none_are_refused(rows, fields, sentence, tmp_path):
    with pytest.raises(DataError) as caught:
        load(tmp_path, rows, **fields)
    assert sentence in str(caught.value)


def test_questions_without_an_answer_are_read_where_they_may_be(tmp_path, tokenizer):
    splits = load(tmp_path, [row(TEXT), row(TEXT, "Rome")], impossible=True)
    assert splits.train["answers"][:] == [[], ["Rome"]]
    examples = task(impossible=True).encode(splits.train, tokenizer)
    assert [example["labels"] for example in examples] == [[0, 0], [6, 6]]


# ---------------------------------------------------------------------------------------------------- windows


def test_an_example_is_a_window_with_the_positions_of_the_answer(tokenizer):
    (example,) = encode([Asked("q", "where", TEXT, ("Rome and Bob",), 14)], tokenizer)[1]
    assert example["id"] == "q#0"
    assert example["input_ids"] == [CLS, WHERE, SEP, ANNA, LIVES, IN, ROME, AND, BOB, LIVES, IN, OSLO, SEP]
    assert example["token_type_ids"] == [0] * 3 + [1] * 10
    assert example["labels"] == [6, 8]
    assert example["window"].cut(6, 8) == ("Rome and Bob", 14, 26)
    assert example["window"].cut(11, 11) == ("Oslo", 36, 40)


def test_a_long_text_is_read_in_windows_that_overlap(tokenizer):
    _, examples = encode([Asked("q", "who", TEXT, ("Bob",), 23)], tokenizer, max_length=10)
    texts = [example["window"].cut(3, example["window"].stop - 1)[0] for example in examples]
    assert texts == ["Anna lives in Rome and Bob", "and Bob lives in Oslo"]
    assert [example["id"] for example in examples] == ["q#0", "q#1"]
    assert [example["labels"] for example in examples] == [[8, 8], [4, 4]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_window_has_the_answer_or_the_label_of_none(seed, stride, tokenizer):
    """Against all that can be: the words of the answer are looked for in the words of the window, one by one."""
    random = np.random.default_rng(seed)
    words = [f"{random.choice(['anna', 'bob', 'rome', 'oslo'])}{random.choice(['', 's'])}" for _ in range(30)]
    context = "  ".join(words)
    start = int(random.integers(30))
    stop = min(start + int(random.integers(1, 4)), 30)
    begins = [sum(len(word) + 2 for word in words[:i]) for i in range(31)]
    answer = context[begins[start] : begins[stop]].rstrip()
    asked = Asked("q", "who", context, (answer,), begins[start])
    _, examples = encode([asked], tokenizer, stride=stride, max_length=12)
    seen = []
    for example in examples:
        window = example["window"]
        spans = [tuple(pair) for pair in window.offsets.tolist()]
        places = [begins[start] + i for i, letter in enumerate(answer) if not letter.isspace()]
        inside = all(any(a <= place < b for a, b in spans) for place in places)
        assert (example["labels"] != [0, 0]) == inside
        if inside:
            assert window.cut(*window.labels) == (answer, begins[start], begins[start] + len(answer))
        assert len(example["input_ids"]) <= 12
        seen.append(spans)
    for one, other in pairwise(seen):
        assert len(set(one) & set(other)) >= stride
    letters = {place for spans in seen for a, b in spans for place in range(a, b)}
    assert letters == {place for place, letter in enumerate(context) if not letter.isspace()}


def test_an_answer_that_no_window_holds_is_told(tokenizer):
    split = Dataset.from_list(
        [{"id": "q", "question": "who", "context": TEXT, "answers": ["Anna lives in Rome and Bob lives"], "start": 0}]
    )
    with pytest.warns(SetpointWarning, match="the answers of 1 questions lie whole in no window of data.max_length=10"):
        examples = task(max_length=10).encode(split, tokenizer)
    assert all(example["labels"] == [0, 0] for example in examples)


def test_a_long_question_leaves_room_for_the_text(tokenizer):
    asked = Asked("q", "who " * 500, TEXT)
    _, examples = encode([asked], tokenizer)
    assert examples[0]["input_ids"][:6] == [CLS, *[WHO] * 4, SEP]  # half of 16 - 2, without 3 special tokens
    assert examples[0]["window"].cut(6, 14)[0] == TEXT
    with pytest.raises(
        DataError, match="data.max_length is 8, with no room for question and text beside a data.stride"
    ):
        list(cut_windows([asked], tokenizer, 8, 2))


@pytest.mark.parametrize("context", ["", "  ", "\u200b"])
def test_a_text_of_nothing_holds_no_answer(context, tokenizer):
    one, examples = encode([Asked("0", "who", context)], tokenizer)
    probabilities = [np.eye(16)[[0, 0]]]
    answer = one.answers_to([("who", context)], examples, probabilities, ())
    assert answer == [{"answer": "", "start": None, "end": None, "probability": 1.0}]


def test_without_cls_the_first_position_stands_for_no_answer():
    plain = wordpiece(WORDS)
    plain.cls_token = None
    _, (example,) = encode([Asked("q", "who", TEXT, ("Bob",), 23)], plain)
    assert example["window"].null == 0


# ---------------------------------------------------------------------------------------------------- logits


def two(tokenizer, **fields):
    asked = [Asked("q0", "where", TEXT, ("Rome",), 14), Asked("q1", "who", "Bob lives", ("Bob",), 0)]
    return encode(asked, tokenizer, **fields)


def test_logits_are_those_of_the_positions_that_may_answer(tokenizer):
    one, examples = two(tokenizer)
    batch = one.collate(tokenizer)(examples)
    assert batch["input_ids"].shape == (2, 13)
    assert batch["input_ids"][1].tolist() == [CLS, WHO, SEP, BOB, LIVES, SEP] + [PAD] * 7
    assert batch["labels"].tolist() == [[6, 6], [3, 3]]
    starts, ends = torch.randn(2, 13, dtype=torch.float64), torch.randn(2, 13, dtype=torch.float64)
    logits = one.logits({"start_logits": starts, "end_logits": ends}, batch)
    allowed = [{0, *range(3, 12)}, {0, 3, 4}]
    for i in range(2):
        for which, given in enumerate((starts, ends)):
            for k in range(16):
                expected = float(given[i, k]) if k in allowed[i] else -math.inf
                assert float(logits[i, which, k]) == expected
    rows = one.loss_rows(logits, batch, None)
    assert rows.labels.tolist() == [6, 6, 3, 3]
    assert torch.equal(rows.student_logits, logits.flatten(0, 1))


def test_store_and_live_teacher_agree(tokenizer, tmp_path):
    one, examples = two(tokenizer)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=15, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    teacher = FrozenTeacher(BertForQuestionAnswering(config), tuple(map(str, range(16))), reading=one)
    collate = one.collate(tokenizer)
    store = TargetStore.build(tmp_path, teacher, examples, collate, Fingerprint("a", "b", "c", "d"))
    live, stored = teacher(collate(examples)), store(collate(examples))
    assert live.shape == (4, 16)
    assert torch.equal(live.isinf(), stored.isinf())
    torch.testing.assert_close(stored, live, rtol=1e-3, atol=1e-4)
    alone = torch.cat([teacher(collate([example])) for example in examples])
    torch.testing.assert_close(alone, live)


# ---------------------------------------------------------------------------------------------------- scores


LONG = "anna lives in rome and bob lives in oslo and anna and bob lives in rome"


def certain(examples, best, rng=None, width=12):
    """Logits of each window: random, with the given (start, end, height)."""
    rng = rng or np.random.default_rng(0)
    found = []
    for example, (start, end, height) in zip(examples, best, strict=True):
        window = example["window"]
        logits = np.full((2, width), -np.inf)
        places = [window.null, *range(window.first, window.stop)]
        logits[:, places] = rng.normal(size=(2, len(places)))
        logits[0, start] += height
        logits[1, end] += height
        found.append(logits)
    return found


def test_the_best_window_of_a_question_answers(tokenizer):
    asked = [Asked("0", "who", LONG, ("bob",), 23), Asked("1", "where", LONG, ("rome", "in rome"), 14)]
    one, examples = encode(asked, tokenizer, max_length=12, stride=4)
    texts = [example["window"].cut(3, example["window"].stop - 1)[0] for example in examples]
    assert len(texts) == 6
    assert texts[:3] == texts[3:]
    assert texts[0] == "anna lives in rome and bob lives in"
    # of question 0 the second window is surest, and right; of question 1 the first says "in rome and"
    where = [(3, 3, 5.0), (4, 4, 9.0), (0, 0, 20.0), (5, 7, 9.0), (0, 0, 20.0), (0, 0, 20.0)]
    logits = certain(examples, where)
    assert examples[1]["window"].cut(4, 4)[0] == "bob"
    references = one.references(examples)
    scores = one.scores(logits, references, ())
    assert scores["em"](slice(None)) == 0.5
    assert scores["f1"](slice(None)) == pytest.approx((1 + 0.8) / 2)
    assert one.metrics(logits, references, ())["windows"] == 6
    # a constant of a row, to which no softmax is sensitive, changes nothing
    moved = [
        row + shift for row, shift in zip(logits, np.random.default_rng(1).normal(size=(6, 2, 1)) * 50, strict=True)
    ]
    assert one.scores(moved, references, ())["f1"](slice(None)) == pytest.approx(0.9)
    probabilities = [one.probabilities(torch.from_numpy(row), 1.0).numpy() for row in moved]
    answers = one.answers_to([("who", LONG), ("where", LONG)], examples, probabilities, ())
    assert [(a["answer"], a["start"], a["end"]) for a in answers] == [("bob", 23, 26), ("in rome and", 11, 22)]
    p = probabilities[1]
    assert answers[0]["probability"] == pytest.approx(p[0, 4] * p[1, 4], abs=1e-6)


def slow_scores(examples, logits, chosen, impossible):
    """Question by question, window by window, span by span."""
    total = weight = 0.0
    for name in sorted({examples[i]["window"].asked.id for i in chosen}):
        mine = [i for i in chosen if examples[i]["window"].asked.id == name]
        share = len(mine) / sum(example["window"].asked.id == name for example in examples)
        best, text, silence = -math.inf, "", math.inf
        for i in mine:
            window = examples[i]["window"]
            p = np.exp(logits[i]) / np.exp(logits[i]).sum(-1, keepdims=True)
            for a in range(window.first, window.stop):
                for b in range(a, min(a + 30, window.stop)):
                    if p[0, a] * p[1, b] > best:
                        best, text = p[0, a] * p[1, b], window.cut(a, b)[0]
            silence = min(silence, p[0, window.null] * p[1, window.null])
        if impossible and silence > best:
            text = ""
        right = examples[mine[0]]["window"].asked.answers
        total += share * (text in right if right else text == "")
        weight += share
    return total / weight


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("impossible", [False, True])
def test_scores_of_any_windows_are_those_of_the_rule(seed, impossible, tokenizer):
    rng = np.random.default_rng(seed)
    asked = [Asked(str(i), "who", LONG, ("bob",), 23) for i in range(12)]
    if impossible:
        asked += [Asked(str(i), "who", LONG) for i in range(12, 18)]
    one, examples = encode(asked, tokenizer, max_length=12, stride=4, impossible=impossible)
    labels = [example["labels"] for example in examples]
    logits = certain(examples, [(*where, rng.choice([0.0, 1.0, 3.0])) for where in labels], rng)
    score = one.scores(logits, one.references(examples), ())["em"]
    count = len(examples)
    for part in (np.arange(count), rng.integers(0, count, count), rng.permutation(count)[:7], np.array([3])):
        assert score(part) == pytest.approx(slow_scores(examples, logits, part, impossible))
    assert score(slice(2, 9)) == pytest.approx(slow_scores(examples, logits, range(2, 9), impossible))
    assert 0 < score(slice(None)) < 1


def test_no_answer_is_given_where_all_windows_say_so(tokenizer):
    asked = [Asked(str(i), "who", LONG) for i in range(2)]
    one, examples = encode(asked, tokenizer, max_length=12, stride=4, impossible=True)
    logits = certain(examples, [(0, 0, 9.0)] * 4 + [(4, 4, 9.0), (0, 0, 9.0)])
    assert one.scores(logits, one.references(examples), ())["f1"](slice(None)) == 0.5
    probabilities = [one.probabilities(torch.from_numpy(row), 1.0).numpy() for row in logits]
    silent, said = one.answers_to(asked, examples, probabilities, ())
    assert (silent["answer"], silent["start"], silent["end"]) == ("", None, None)
    assert silent["probability"] > 0.9
    assert said["answer"] == "bob"


def test_the_loss_is_that_of_both_ends_at_the_best_temperature(tokenizer):
    one, examples = two(tokenizer)
    logits = certain(examples, [(6, 5, 1.0), (3, 4, 1.0)])
    labels = [example["labels"] for example in examples]

    def nll(t):
        return np.mean(
            [
                np.log(np.exp(row[k] / t).sum()) - row[k][label] / t
                for row, pair in zip(logits, labels, strict=True)
                for k, label in enumerate(pair)
            ]
        )

    least = min(nll(t) for t in np.geomspace(0.01, 100, 4001))
    assert one.loss(logits, one.references(examples)) == pytest.approx(least, rel=1e-4)


# ---------------------------------------------------------------------------------------------------- inputs


def test_inputs_are_rows_and_pairs():
    one = task(context="paragraph")
    assert one.read_input({"question": "who", "paragraph": TEXT, "n": 1}, "input 0") == ("who", TEXT)
    assert one.read_input(["who", TEXT], "input 0") == ("who", TEXT)
    assert one.input_length(("who", "abc")) == 6
    for value, sentence in (
        ({"question": "who"}, "input 0 has no 'paragraph', only 'question': give question and paragraph"),
        ("who", "input 0 is 'who': give question and paragraph"),
        (["who", 3], "input 0 has 3 for its context: give a string"),
    ):
        with pytest.raises(DataError) as caught:
            one.read_input(value, "input 0")
        assert str(caught.value) == sentence


def test_a_model_of_another_kind_of_output_is_read_by_its_parts(tokenizer):
    one, examples = two(tokenizer)
    batch = one.collate(tokenizer)(examples)
    starts, ends = torch.zeros(2, 13), torch.ones(2, 13)
    a = one.logits(SimpleNamespace(start_logits=starts, end_logits=ends), batch)
    assert torch.equal(a, one.logits({"start_logits": starts, "end_logits": ends}, batch))


def test_what_decides_the_windows_is_part_of_a_stores_fingerprint():
    assert task().preprocessing() == {
        "task": "extractive-question-answering", "max_length": 16, "augment": None, "stride": 2, "impossible": False,
    }  # fmt: skip
    assert isinstance(make_task("extractive-question-answering", DataRecipe(dataset="x")), QuestionAnswering)
    assert not task().plain
