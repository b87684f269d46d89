"""Unlabelled examples: read, chosen, labelled by the teacher, and learnt from without labels."""

import json

import numpy as np
import pytest
import torch

from setpoint import evaluation, pipeline, stages, teachers
from setpoint.errors import DataError, RecipeError
from setpoint.job import open_job
from setpoint.recipe import DataRecipe
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.tasks import make_task
from setpoint.transfer import confident, read_transfer
from tiny import ner_recipe, save_teacher


def read(folder, task="token-classification", count=10, lines=None, name="raw.jsonl", **fields):
    (folder / name).write_text("\n".join(map(json.dumps, lines)) if lines else "Anna is in Rome.\n\nHello\n")
    data = DataRecipe(dataset="x", transfer={"files": [str(folder / name)]} | fields)
    return read_transfer(data, make_task(task, data), count)


def made_job(tmp_path, transfer=None, **data):
    recipe = ner_recipe(tmp_path, tmp_path / "teacher")
    save_teacher(tmp_path / "teacher")
    recipe["teacher"] = {"model": str(tmp_path / "teacher")}
    words = [["anna", "lives", "in", "oslo"], ["bob", "rome"], ["carla"]]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps({"tokens": line}) + "\n" for line in words))
    recipe["data"] |= {"transfer": {"files": [str(tmp_path / "raw.jsonl")]} | (transfer or {})} | data
    return open_job(parse_recipe(recipe, tmp_path), RunFolder(tmp_path / "run"))


# ---------------------------------------------------------------------------------------------------- reading


def test_lines_are_words_at_spaces_or_at_punctuation_too(tmp_path):
    lines = [{"tokens": "Anna is in Rome."}, {"tokens": ["a", "b"]}, {"tokens": "  "}]
    assert read(tmp_path, lines=lines) == [["Anna", "is", "in", "Rome."], ["a", "b"]]
    assert read(tmp_path, lines=lines, punctuation=True)[0] == ["Anna", "is", "in", "Rome", "."]


def test_a_row_may_hold_several_inputs_in_a_column_of_another_name(tmp_path):
    lines = [{"sentences": ["a b", "c"], "genre": "news"}, {"sentences": ["d"], "genre": "news"}]
    assert read(tmp_path, lines=lines, column="sentences", several=True) == [["a", "b"], ["c"], ["d"]]
    texts = read(tmp_path, "text-classification", lines=lines, column="sentences", several=True)
    assert texts == [("a b",), ("c",), ("d",)]


def test_of_several_columns_the_first_that_a_row_has_is_read(tmp_path):
    lines = [
        {"sentences": ["a b", "c"]},
        {"description": "Rome wins", "title": "t"},
        {"title": "x", "sentences": ["d"]},
    ]
    found = read(tmp_path, lines=lines, column=["description", "sentences"], several=True)
    assert found == [["a", "b"], ["c"], ["Rome", "wins"], ["d"]]
    with pytest.raises(DataError, match="example 0 of data.transfer 'raw.jsonl' has no column 'text'"):
        read(tmp_path, lines=lines, column=["text", "title"])


def test_only_rows_of_some_values_are_read(tmp_path):
    lines = [{"tokens": f"w{i}", "who": i % 3, "day": "mon" if i < 4 else "tue"} for i in range(7)]
    assert read(tmp_path, lines=lines, only={"who": [0, 1], "day": ["tue"]}) == [["w4"], ["w6"]]


def test_plain_text_is_a_line_an_example(tmp_path):
    assert read(tmp_path, "text-classification", name="raw.txt") == [("Anna is in Rome.",), ("Hello",)]


def test_a_ratio_keeps_some_evenly_spread(tmp_path):
    lines = [{"tokens": str(i)} for i in range(101)]
    assert read(tmp_path, lines=lines, ratio=0.5, count=10) == [["0"], ["25"], ["50"], ["75"], ["100"]]
    assert len(read(tmp_path, lines=lines, ratio=50.0, count=10)) == 101


@pytest.mark.parametrize(
    ("lines", "fields", "told"),
    [
        (
            [{"text": "a"}],
            {},
            r"example 0 of data.transfer 'raw.jsonl' has no column 'tokens': set data.tr",
        ),
        ([{"tokens": 3}], {}, r"example 0 of data.transfer 'raw.jsonl' has 3 for its tokens"),
        ([{"tokens": 3}], {"several": True}, r"has no list in column 'tokens': remove several"),
        ([{"tokens": " "}], {}, r"data.transfer has no examples"),
    ],
)
def test_what_is_no_input_is_refused(tmp_path, lines, fields, told):
    with pytest.raises(DataError, match=told):
        read(tmp_path, lines=lines, **fields)


def test_a_file_that_is_not_there_is_named(tmp_path):
    data = DataRecipe(dataset="x", transfer={"files": [str(tmp_path / "none.jsonl")]})
    with pytest.raises(DataError, match=r"data.transfer.files '.*none.jsonl' does not exist"):
        read_transfer(data, make_task("text-classification", data), 1)


def test_confidence_is_the_mean_over_rows_by_hand():
    logits = [np.log([[0.9, 0.1], [0.5, 0.5]]), np.log([[0.6, 0.4]]), np.log([[0.71, 0.29]])]
    assert confident(logits, 0.7) == [0, 2]


# ---------------------------------------------------------------------------------------------------- learning


def test_the_store_holds_them_and_students_learn_them_and_labels_are_not_asked(tmp_path):
    with RunFolder(tmp_path / "run"):
        job = made_job(tmp_path)
        teacher = teachers.load_teacher(job)
        targets = teachers.prepare_targets(job, teacher)
        names = [example["id"] for example in job.training_data(teacher.processor)]
        assert names[-3:] == ["transfer-0", "transfer-1", "transfer-2"]
        assert job.unlabelled == set(names[-3:])
        examples, collate = job.encoded("transfer", teacher.processor), job.task.collate(teacher.processor)
        stored = evaluation.predict(targets, examples, collate)
        live = evaluation.predict(teacher.source, examples, collate)
        assert [len(rows) for rows in stored] == [4, 2, 1]
        assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(stored, live, strict=True))

        arguments = (job.recipe.train, stages.make_objective(job.recipe))
        model, processor = stages.build_student(job, teacher, 0)
        trainer = stages.make_trainer(job, model, processor, *arguments, targets, 0, tmp_path / "scratch")
        batch = collate([job.encoded("train", processor)[0], *examples])
        torch.manual_seed(0)
        model.eval()
        found = trainer.compute_loss(model, batch)
        changed = dict(batch)
        changed["labels"] = batch["labels"].clone()
        changed["labels"][1:][changed["labels"][1:] >= 0] = 2  # what stands there marks rows and nothing else
        assert torch.equal(trainer.compute_loss(model, changed), found)

        hard = stages.make_trainer(job, model, processor, *arguments, None, 0, tmp_path / "scratch2")
        assert [example["id"] for example in hard.train_dataset] == names[:-3]


def test_only_what_the_teacher_is_sure_of_is_learnt(tmp_path):
    with RunFolder(tmp_path / "run"):
        job = made_job(tmp_path)
        teacher = teachers.load_teacher(job)
        targets = teachers.prepare_targets(job, teacher)
        examples = job.encoded("transfer", teacher.processor)
        rows = evaluation.predict(targets, examples, job.task.collate(teacher.processor))
        sure = [float(torch.from_numpy(row).softmax(-1).amax(-1).mean()) for row in rows]
        least = sorted(sure)[1]
        recipe = job.recipe.data.transfer.model_copy(update={"min_confidence": least - 1e-6})
        data = job.recipe.data.model_copy(update={"transfer": recipe})
        from dataclasses import replace

        chosen = teachers.choose_transfer(
            replace(job, recipe=job.recipe.model_copy(update={"data": data})), teacher, targets
        )
        assert chosen.kept == tuple(i for i in range(3) if sure[i] >= least - 1e-6)
        assert len(chosen.kept) == 2
        learnt = [example["id"] for example in chosen.training_data(teacher.processor)][-2:]
        assert learnt == [f"transfer-{i}" for i in chosen.kept]


def test_a_run_with_them_says_how_many_and_one_without_the_same_file_is_another(tmp_path):
    job = made_job(tmp_path, transfer={"min_confidence": 0.34})
    found = pipeline.run(job.recipe, tmp_path / "whole")
    assert found["transfer"]["examples"] == 3
    assert 1 <= found["transfer"]["used"] <= 3
    other = made_job(tmp_path).recipe
    (tmp_path / "raw.jsonl").write_text(json.dumps({"tokens": ["oslo"]}) + "\n")
    assert open_job(other, RunFolder(tmp_path / "run")).data != job.data


# ---------------------------------------------------------------------------------------------------- few labels


def test_few_shots_leave_the_others_without_labels(tmp_path):
    rows = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(12)]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": "few", "task": "text-classification",
        "data": {"train": str(tmp_path / "train.jsonl"), "validation": str(tmp_path / "dev.jsonl"),
                 "test": str(tmp_path / "test.jsonl"), "shots": 2},
        "teacher": {"model": "x"}, "student": {"model": "x"},
    }  # fmt: skip
    job = open_job(parse_recipe(recipe, tmp_path), RunFolder(tmp_path / "run"))
    assert job.unlabelled == {f"train-{i}" for i in range(4, 12)}


def test_few_shots_of_words_are_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"'data.shots' is given for examples that are of more than a class"):
        made_job(tmp_path, shots=2)
