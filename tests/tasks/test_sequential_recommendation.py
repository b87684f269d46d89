import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from setpoint import models, pipeline
from setpoint.errors import DataError, ModelError, RecipeError, SetpointWarning
from setpoint.recipe import ConfigModel, DataRecipe
from setpoint.recipe_file import load_recipe, parse_recipe
from setpoint.shipping.export import export
from setpoint.shipping.shipped import Shipped
from setpoint.tasks.base import ALL
from setpoint.tasks.sequential_recommendation import SequentialRecommendation
from setpoint.types import valid_rows

ROWS = [  # user, item, time
    ("u", "10", 5), ("v", "7", 1), ("u", "9", 1), ("u", "8", 3), ("v", "9", 1), ("u", "7", 3), ("v", "8", 0),
    ("u", "11", 2), ("w", "10", 4), ("w", "7", 2),
]  # fmt: skip
"""In time: u has 9 11 8 7 10 (8 before 7, as in the file), v has 8 7 9, w has 7 10, too few to leave any out."""


def table(folder, rows=ROWS, header="user,item,time"):
    path = folder / "chosen.csv"
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


def task(folder, rows=ROWS, header="user,item,time", **fields):
    return SequentialRecommendation(DataRecipe(**{"train": table(folder, rows, header), "time": "time"} | fields))


def sequences(split, labels):
    return {
        name: ([labels[i] for i in items], rows)
        for name, items, rows in zip(*(split[c] for c in ("id", "items", "rows")), strict=True)
    }


def test_the_last_item_is_the_test_and_the_one_before_the_validation(tmp_path):
    splits = task(tmp_path).load()
    assert splits.labels == ("7", "8", "9", "10", "11") == splits.head
    assert sequences(splits.train, splits.labels) == {"train-u": (["9", "11", "8"], 2), "train-w": (["7", "10"], 1)}
    assert sequences(splits.validation, splits.labels) == {
        "validation-u": (["9", "11", "8", "7"], 1), "validation-v": (["8", "7"], 1),
    }  # fmt: skip
    assert sequences(splits.test, splits.labels) == {
        "test-u": (["9", "11", "8", "7", "10"], 1), "test-v": (["8", "7", "9"], 1),
    }  # fmt: skip


def test_without_times_the_order_is_the_files(tmp_path):
    splits = task(tmp_path, time=None).load()
    assert sequences(splits.test, splits.labels)["test-u"][0] == ["10", "9", "8", "7", "11"]


def test_only_the_newest_items_are_read(tmp_path):
    splits = task(tmp_path, max_length=2).load()
    assert sequences(splits.train, splits.labels)["train-u"] == (["9", "11", "8"], 2)
    assert sequences(splits.test, splits.labels)["test-u"] == (["8", "7", "10"], 1)
    splits = task(tmp_path, max_length=1).load()
    assert sequences(splits.train, splits.labels)["train-u"] == (["11", "8"], 1)


def test_labels_are_the_next_items_and_only_what_was_left_out_is_a_row_later(tmp_path):
    made = task(tmp_path)
    splits = made.load()
    collate = made.collate(None)
    batch = collate(made.encode(splits.train, None))
    assert batch["input_ids"].tolist() == [[2, 4], [0, 0]]
    assert batch["labels"].tolist() == [[4, 1], [3, -100]]
    assert batch["example_id"] == ["train-u", "train-w"]
    batch = collate(made.encode(splits.test, None))
    assert batch["input_ids"].tolist() == [[2, 4, 1, 0], [1, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 3], [-100, 2, -100, -100]]


def test_padding_moves_no_row(tmp_path):
    """No position looks at one behind it, so that padding needs neither a mask nor an item of its own."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=5, n_embd=8, n_layer=2, n_head=2, n_positions=8, use_cache=False)
    model = GPT2LMHeadModel(config).double().eval()
    short, long = (torch.tensor([items]) for items in ([2, 4, 1], [2, 4, 1, 3, 3, 0]))
    with torch.no_grad():
        torch.testing.assert_close(model(long).logits[:, :3], model(short).logits, rtol=1e-10, atol=1e-12)


def test_a_limit_counts_users(tmp_path):
    splits = task(tmp_path, limit={"test": 1}).load()
    assert (splits.train["id"], splits.test["id"]) == (["train-u", "train-w"], ["test-u"])


def test_users_of_one_item_are_left_out_and_said(tmp_path):
    with pytest.warns(SetpointWarning, match="1 users have one item, which follows nothing, and are left out"):
        splits = task(tmp_path, [*ROWS, ("x", "8", 1)]).load()
    assert splits.train["id"] == ["train-u", "train-w"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test": "x.csv"}, "data.test is given while sequential-recommendation takes its splits from data.train"),
        ({"shares": {"train": 0.8, "validation": 0.1, "test": 0.1}}, "data.shares is given while"),
        ({"user": "who"}, "data.train has no column 'who'"),
        ({"negatives": 6}, "data.negatives is 6 for 5 items: give at most 5"),
        ({"labels": ("7", "8")}, "data.train has the label '10', which is none of 7, 8"),
    ],
)
def test_data_that_are_refused(tmp_path, fields, message):
    with pytest.raises(DataError) as caught:
        task(tmp_path, **fields).load()
    assert message in str(caught.value)


def test_times_that_are_none_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"example 'train-10' of data.train has 'noon' in column 'time'"):
        task(tmp_path, [*ROWS, ("x", "8", "noon")]).load()


def test_too_few_items_are_refused(tmp_path):
    with pytest.raises(DataError, match="leaves nothing for the train split: give users of four items or more"):
        task(tmp_path, [("u", i, i) for i in range(3)]).load()


# ---------------------------------------------------------------------------------------------------- loss


def batch_of(made, split):
    return made.collate(None)(made.encode(split, None))


def test_training_rows_are_over_candidates_and_others_over_all_items(tmp_path):
    made = task(tmp_path, negatives=2)
    splits = made.load()
    generator = torch.Generator().manual_seed(0)
    for split, width in ((splits.train, 3), (splits.validation, 5), (splits.test, 5)):
        batch = batch_of(made, split)
        z = torch.randn(*batch["labels"].shape, 5, dtype=torch.float64, generator=generator)
        v = torch.randn(int(valid_rows(batch).sum()), 5, dtype=torch.float64, generator=generator)
        torch.manual_seed(3)
        rows = made.loss_rows(z, batch, v)
        assert rows.student_logits.shape == rows.teacher_logits.shape == (len(v), width)
        if width == 5:
            assert torch.equal(rows.student_logits, z[valid_rows(batch)])
            assert torch.equal(rows.labels, batch["labels"][valid_rows(batch)])
            continue
        torch.manual_seed(3)
        candidates = torch.randperm(5)[:2].tolist()
        for given, found in ((z[valid_rows(batch)], rows.student_logits), (v, rows.teacher_logits)):
            for row, label, got in zip(given, batch["labels"][valid_rows(batch)].tolist(), found, strict=True):
                drawn = [-math.inf if j == label else float(row[j]) + math.log(5 / 2) for j in candidates]
                np.testing.assert_allclose(got, [float(row[label]), *drawn])
        assert rows.labels.tolist() == [0] * len(v)
        assert made.loss_rows(z, batch, None).teacher_logits is None


def test_candidates_are_new_for_each_batch_and_the_same_from_the_same_seed(tmp_path):
    made = task(tmp_path, negatives=2)
    batch = batch_of(made, made.load().train)
    z = torch.randn(*batch["labels"].shape, 5)

    def drawn():
        return [made.loss_rows(z, batch, None).student_logits for _ in range(6)]

    torch.manual_seed(0)
    first = drawn()
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(), strict=True))
    assert any(not torch.equal(first[0], other) for other in first[1:])


def test_what_is_left_out_is_ranked_among_all_items_those_had_before_included(tmp_path):
    made = task(tmp_path)
    splits = made.load()
    batch = batch_of(made, splits.test)
    logits = torch.zeros(*batch["labels"].shape, 5)
    logits[..., 2] = 3.0  # the item 9, which u had and which is v's right one
    logits[..., 3] = 2.0  # the item 10, u's right one
    rows = valid_rows(batch)
    scored = [row[None].numpy() for row in made.scored(logits[rows], batch["labels"][rows])]
    assert [row[0, 0] for row in scored] == [2, 1]
    scores = made.scores(scored, made.references(made.encode(splits.test, None)), splits.labels)
    assert scores["hr@1"](ALL) == 0.5
    assert scores["ndcg@10"](ALL) == pytest.approx((1 + 1 / math.log2(3)) / 2)


# ---------------------------------------------------------------------------------------------------- models


def test_a_models_tokens_are_the_items():
    spec = ConfigModel(config={"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1})
    kind = SequentialRecommendation(DataRecipe(dataset="x")).model_class()
    model = models.load_model(spec, kind, ("a", "b", "c"))
    assert (model.config.vocab_size, model.config.id2label[2], model.config.bos_token_id) == (3, "c", None)
    spec = ConfigModel(config={"model_type": "gpt2", "vocab_size": 4})
    with pytest.raises(ModelError, match="vocab_size 4 where the data have 3 classes: leave it out"):
        models.load_model(spec, kind, ("a", "b", "c"))


@pytest.mark.parametrize("tied", [True, False])
def test_items_in_another_order_are_brought_in_order_where_they_go_in_and_out(tied):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=3, n_embd=8, n_layer=1, n_head=1, tie_word_embeddings=tied, use_cache=False,
        id2label={0: "c", 1: "a", 2: "b"}, label2id={"c": 0, "a": 1, "b": 2},
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        before = model(torch.tensor([[0, 1, 2]])).logits  # c a b
        models.order_classes(model, ("a", "b", "c"), "teacher")
        after = model(torch.tensor([[2, 0, 1]])).logits
    torch.testing.assert_close(after, before[..., [1, 2, 0]])


# ---------------------------------------------------------------------------------------------------- answers


def test_answers_are_the_likeliest_items(tmp_path):
    made = task(tmp_path)
    splits = made.load()
    read = made.read_input({"item": ["9", 11, "unheard of"]}, "input 0")
    assert read == [2, 4]
    assert made.read_input("9 11", "input 0") == read
    (example,) = made.encode_inputs([read], None)
    assert (example["input_ids"], example["labels"]) == ([2, 4], [-100, 0])
    (answer,) = made.answers([read], [np.array([[0.1, 0.2, 0.4, 0.3, 0.0]])], splits.labels)
    assert answer["items"][:2] == [{"item": "9", "probability": 0.4}, {"item": "10", "probability": 0.3}]
    assert len(answer["items"]) == 5


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["x", "y"], "input 0 has no item that the model knows, only 'x': give one of its items"),
        ([], r"input 0 has \[\] for its items: give a list of items, the newest last"),
        (3, "input 0 has 3 for its items"),
        ([None], "input 0 has null for its item"),
        ({"films": ["9"]}, "input 0 has no 'item', only 'films'"),
    ],
)
def test_inputs_that_are_refused(tmp_path, value, message):
    made = task(tmp_path)
    made.load()
    with pytest.raises(DataError, match=message):
        made.read_input(value, "input 0")


# ---------------------------------------------------------------------------------------------------- a run


@pytest.fixture
def recipe(tmp_path):
    """Each user walks a circle of twelve items, so that the next one can be told."""
    rows = [(f"user {i}", (i + step) % 12, step) for i in range(36) for step in range(3 + i % 5)]
    small = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 4, "use_cache": False}
    how = {"batch_size": 12, "learning_rate": 1e-2}
    return {
        "name": "tiny",
        "task": "sequential-recommendation",
        "data": {"train": table(tmp_path, rows), "time": "time", "max_length": 4},
        "teacher": {"model": {"kind": "config", "config": small}, "train": {"epochs": 12, **how}},
        "student": {"model": {"kind": "config", "config": small | {"n_embd": 8}}},
        "temperature": 2,
        "targets": {"dtype": "float32"},
        "train": {"epochs": 12, **how},
        "seeds": [0],
    }


@pytest.mark.parametrize("negatives", [None, pytest.param(6, marks=pytest.mark.slow)])
def test_a_run_learns_what_comes_next(recipe, tmp_path, negatives):
    recipe["data"]["negatives"] = negatives
    metrics = pipeline.run(parse_recipe(recipe), tmp_path / "run")
    found = {name: metrics[name]["metrics"]["ndcg@10"] for name in ("teacher", "student_initial", "student")}
    assert found["teacher"] > 0.95 > found["student"] > 0.8 > found["student_initial"]
    assert metrics["beside"] == ["hr@10", "mrr"]
    assert metrics["student"]["agreement"]["top1"] > 0.5
    if negatives is None:
        exported(tmp_path / "run")
    assert json.loads((tmp_path / "run/recipe.json").read_text())["data"]["negatives"] == negatives


def exported(run):
    """A folder knows where it cuts a sequence, and what comes next on the circle."""
    place, manifest, _ = export(run, "onnx")
    assert (manifest.max_length, manifest.parity.agreement) == (4, 1.0)
    answers = Shipped.open(place).predict([["3", 4, 5], {"item": ["9", "10", "11"]}, list(range(8))])
    assert all(len(answer["items"]) == 10 for answer in answers)
    tops = [answer["items"][0]["item"] for answer in answers]
    assert sum(top == right for top, right in zip(tops, ("6", "0", "8"), strict=True)) >= 2
    assert answers[2] == Shipped.open(place).predict([list(range(4, 8))])[0]


@pytest.mark.slow
def test_a_store_gives_what_the_live_teacher_gives(recipe, tmp_path):
    recipe["train"]["epochs"] = recipe["teacher"]["train"]["epochs"] = 2
    recipe["hard_baseline"] = False
    found = []
    for kind in ("store", "live"):
        recipe["targets"] = {"kind": kind, **({"dtype": "float32"} if kind == "store" else {})}
        found.append(pipeline.run(parse_recipe(recipe), tmp_path / kind)["student"]["metrics"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_sequences_longer_than_a_model_reads_are_refused(recipe, tmp_path):
    recipe["data"]["max_length"] = 5
    with pytest.raises(ModelError, match="data.max_length is 5 while the teacher reads 4 tokens at most"):
        pipeline.run(parse_recipe(recipe), tmp_path / "run")


def test_other_tasks_still_need_a_test_split(recipe):
    recipe["task"] = "text-classification"
    with pytest.raises(RecipeError, match="the recipe has no test split: give data.test, or cut data.train"):
        parse_recipe(recipe)


def test_candidates_are_for_items(recipe):
    recipe["task"], recipe["data"]["negatives"], recipe["data"]["test"] = "text-classification", 4, "x.csv"
    with pytest.raises(RecipeError, match="has data.negatives with the task text-classification, which ranks no items"):
        parse_recipe(recipe)


def test_a_softness_beyond_the_candidates_is_refused(recipe, tmp_path):
    recipe["data"]["negatives"], recipe["temperature"] = 3, {"policy": "softness", "effective_classes": 5}
    with pytest.raises(RecipeError, match="'temperature.effective_classes' is 5 for 4 classes: give a number below 4"):
        pipeline.run(parse_recipe(recipe), tmp_path / "run")


def test_a_temperature_that_reads_all_items_is_refused_with_candidates(recipe):
    recipe["data"]["negatives"], recipe["temperature"] = 4, {"policy": "ctkd_instance"}
    with pytest.raises(RecipeError, match="the recipe has data.negatives with ctkd_instance"):
        parse_recipe(recipe)


@pytest.mark.shared
def test_movielens_is_read_whole(shared):
    splits = SequentialRecommendation(
        load_recipe(Path(__file__).parents[2] / "recipes/recommendation.yaml").data
    ).load()
    assert (len(splits.labels), len(splits.train), len(splits.validation), len(splits.test)) == (1682, 943, 943, 943)
    assert {min(map(len, splits.test["items"])), max(map(len, splits.test["items"]))} == {20, 51}  # 20 at least each
