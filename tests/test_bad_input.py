"""Every kind of bad input, through the command line: one sentence on stderr, exit 2, and a folder that can go on."""

import errno
import json
import os

import pytest
import torch
import yaml
from transformers import AutoTokenizer, BertForTokenClassification

from setpoint import cli
from setpoint.pretraining import train_tokenizer
from setpoint.run_folder import RunFolder
from tiny import save_teacher

ABOVE_0 = "give a finite number above 0"


@pytest.fixture
def base(ner, teacher_folder):
    """A recipe without a mistake."""
    train = {"epochs": 1, "batch_size": 8}
    return ner | {"teacher": {"model": str(teacher_folder)}, "train": train, "seeds": [0], "hard_baseline": False}


@pytest.fixture
def setpoint(tmp_path, monkeypatch, capsys):
    """``setpoint run`` on a recipe: exit code and stderr."""

    def run(recipe, *options):
        (tmp_path / "recipe.yaml").write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe))
        words = ["run", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run"), *options]
        monkeypatch.setattr("sys.argv", ["setpoint", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        streams = capsys.readouterr()
        assert not stopped.value.code or streams.out == ""
        return stopped.value.code or 0, streams.err

    return run


def changed(recipe, change):
    """A recipe with some fields of its sections replaced; None removes one."""
    result = dict(recipe)
    for key, value in change.items():
        whole = result[key] | value if isinstance(value, dict) and isinstance(result.get(key), dict) else value
        result[key] = {k: v for k, v in whole.items() if v is not None} if isinstance(whole, dict) else whole
    return {key: value for key, value in result.items() if value is not None}


RECIPES = [
    ({"epochs": 3}, "recipe field 'epochs' is unknown: did you mean 'train.epochs'?"),
    ({"train": {"epoch": 3}}, "recipe field 'train.epoch' is unknown: did you mean 'epochs'?"),
    ({"task": None}, "recipe field 'task' is missing: add it"),
    ({"train": {"epochs": "three"}}, "recipe field 'train.epochs' is 'three': give a number"),
    ({"train": {"optimizer": "adam"}}, "recipe field 'train.optimizer' is 'adam': did you mean 'adamw_torch'?"),
    ({"temperature": 0}, f"recipe field 'temperature' is 0: {ABOVE_0}"),
    ({"temperature": -1.5}, f"recipe field 'temperature' is -1.5: {ABOVE_0}"),
    ({"temperature": float("nan")}, f"recipe field 'temperature' is .nan: {ABOVE_0}"),
    ({"temperature": float("inf")}, f"recipe field 'temperature' is .inf: {ABOVE_0}"),
    ({"objective": {"alpha": 1.5}}, "recipe field 'objective.alpha' is 1.5: give a number from 0 to 1"),
    ({"objective": {"alpha": -0.1}}, "recipe field 'objective.alpha' is -0.1: give a number from 0 to 1"),
]

DATA = [
    (
        {"data": {"train": "./none.conll"}},
        "data.train '{folder}/none.conll' does not exist: give the path of a readable file",
    ),
    ({"data": {"validation": "./empty.conll"}}, "data.validation has no examples: give a split with some"),
    (
        {"data": {"train": "./tagless.conll"}},
        "{folder}/tagless.conll, line 2: token 'lives' has no tag: write token and tag in columns",
    ),
    (
        {"data": {"test": "./other.conll"}},
        "data.test has the label 'B-ORG', which is none of O, B-LOC, B-PER: mend the data, or list every label in"
        " data.labels",
    ),
    (
        {"data": {"only": {"train": {"speaker": [1]}}}},
        "data.train has no column 'speaker', only tokens, ner_tags: set data.only.train",
    ),
    (
        {"data": {"train": "./broken.npz"}},
        "data.train '{folder}/broken.npz' cannot be read (File is not a zip file): give an npz of plain arrays",
    ),
    (
        {"data": {"labels": ["O", "B-PER"]}},
        "data.train has the label 'B-LOC', which is none of O, B-PER: mend the data, or list every label in"
        " data.labels",
    ),
]  # fmt: skip

MODELS = [
    (
        {"teacher": {"model": "./nowhere"}},
        "teacher.model '{folder}/nowhere' does not exist: give a folder that is there, or a hub id",
    ),
    (
        {"data": {"labels": ["O", "B-PER", "B-ORG", "B-LOC"]}},
        "the teacher has 3 classes where the data have 4: give a teacher with the labels O, B-PER, B-ORG, B-LOC",
    ),
    (
        {"data": {"train": "./other.conll", "validation": "./other.conll", "test": "./other.conll"}},
        "the labels of teacher and data differ in 'B-LOC', 'B-ORG': give a teacher with the labels of the data, or set"
        " data.labels",
    ),
    (
        {"teacher": {"model": "./unnamed"}},
        "the teacher has no names for its 3 classes, only LABEL_0, LABEL_1, LABEL_2: set teacher.labels to their names"
        " in its order",
    ),
    (
        {"teacher": {"model": "./unnamed", "labels": ["O", "B-PER"]}},
        "teacher.labels names 2 classes of 3: name each of them",
    ),
    (
        {"student": {"model": "./person"}},
        "the labels of student and data differ in 'B-LOC', 'I-PER': give a student with the labels of the data, or set"
        " data.labels",
    ),
    (
        {"student": {"model": {"kind": "layers", "layers": 5}}},
        "student.model.layers is 5 while the teacher has 2 layers: give at most 2, or a list from 0 to 1, each once",
    ),
    (
        {"student": {"model": {"kind": "config", "config": {"model_type": "bert", "hiden_size": 8}}}},
        "the config of model_type 'bert' has no field 'hiden_size': did you mean 'hidden_size'?",
    ),
    (
        {"student": {"freeze": {"names": ["*.nothing.*"]}}},
        "student.freeze.names has '*.nothing.*', which matches no parameter: mend the pattern; a parameter is"
        " 'bert.embeddings.word_embeddings.weight'",
    ),
    (
        {"student": {"tokenizer": "./pieces"}, "targets": {"kind": "live"}},
        "targets.kind is live while student.tokenizer is not the teacher's: set targets.kind to store, where rows are"
        " matched by word",
    ),
    (
        {"teacher": {"model": "./broken"}},
        "teacher logits are not finite for examples 'train-0', 'train-3', 'train-6' and 17 more: mend the teacher",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), RECIPES + DATA + MODELS)
def test_bad_input_is_one_sentence_and_exit_2(base, setpoint, tmp_path, change, sentence):
    (tmp_path / "empty.conll").write_text("\n\n")
    (tmp_path / "broken.npz").write_text("no archive")
    (tmp_path / "tagless.conll").write_text("anna B-PER\nlives\n")
    (tmp_path / "other.conll").write_text("anna B-PER\nat O\nacme B-ORG\n\n" * 4)
    save_teacher(tmp_path / "person", labels=("B-PER", "I-PER", "O"))
    save_teacher(tmp_path / "unnamed", labels=("LABEL_0", "LABEL_1", "LABEL_2"))
    model = save_teacher(tmp_path / "broken")
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[:] = torch.nan
    model.save_pretrained(tmp_path / "broken")
    train_tokenizer([" ".join("abceilmnoprsv"), "xabceilmnoprsv"], vocab_size=34).save_pretrained(tmp_path / "pieces")
    code, stderr = setpoint(changed(base, change))
    assert stderr == f"setpoint: {sentence.format(folder=tmp_path)}\n"
    assert code == 2
    assert not (tmp_path / "run/metrics.json").exists()
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_the_recipe_without_a_mistake_runs(base, setpoint, tmp_path):
    # Its teacher knows nothing, and the one thing that is said is that it shows.
    told = "setpoint: the targets at T = 2 have 3.00 effective classes of 3 and tell the classes apart no more"
    assert setpoint(base, "--json") == (0, f"{told}: lower the temperature\n")
    assert (tmp_path / "run/metrics.json").exists()


def test_a_student_that_cuts_texts_off_earlier_learns_from_their_first_words(base, setpoint, tmp_path):
    letters = train_tokenizer([" ".join("abceilmnoprsv"), "xabceilmnoprsv"], vocab_size=34)
    letters.save_pretrained(tmp_path / "letters")
    code, stderr = setpoint(changed(base, {"student": {"tokenizer": "./letters"}, "data": {"max_length": 12}}))
    assert code == 0
    assert stderr.splitlines()[0] == "setpoint: 32 words lie beyond data.max_length=12 and are left out"
    assert "rows in the target store" not in stderr


def test_a_store_of_another_teacher_is_refused_and_left_alone(base, setpoint, tmp_path):
    assert setpoint(base)[0] == 0
    before = {file: file.read_bytes() for file in files(tmp_path / "run")}
    teacher = BertForTokenClassification.from_pretrained(base["teacher"]["model"])
    teacher.classifier.bias.data += 1
    teacher.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(base["teacher"]["model"]).save_pretrained(tmp_path / "other")
    code, stderr = setpoint(changed(base, {"teacher": {"model": "./other"}}))
    assert code == 2
    assert stderr == (
        f"setpoint: run folder '{tmp_path}/run' holds a teacher made from another 'teacher.model.model': start over"
        " with --fresh, or choose another folder with --run-dir\n"
    )
    assert {file: file.read_bytes() for file in files(tmp_path / "run")} == before


def files(folder):
    return [file for file in folder.rglob("*") if file.is_file() and file.name != ".lock"]


def test_weights_that_changed_in_their_folder_are_another_teacher(base, setpoint, tmp_path):
    save_teacher(tmp_path / "teacher")
    recipe = changed(base, {"teacher": {"model": "./teacher"}})
    assert setpoint(recipe)[0] == 0
    teacher = BertForTokenClassification.from_pretrained(tmp_path / "teacher")
    teacher.classifier.bias.data += 1
    teacher.save_pretrained(tmp_path / "teacher")
    assert setpoint(recipe) == (
        2,
        f"setpoint: run folder '{tmp_path}/run' holds a teacher made from another 'teacher files {tmp_path}/teacher':"
        " start over with --fresh, or choose another folder with --run-dir\n",
    )


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(base, setpoint, tmp_path, monkeypatch):
    from setpoint.targets import shards

    real, written = shards.write_atomic, []

    def full(path, data):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)
        written.append(path)

    monkeypatch.setattr(shards, "write_atomic", full)
    assert setpoint(base) == (
        2,
        f"setpoint: the disk is full while writing target store '{tmp_path}/run/targets' (2 finished shards are kept):"
        " make room and run the same command again; it continues\n",
    )
    monkeypatch.setattr(shards, "write_atomic", real)
    stamps = [path.stat().st_mtime_ns for path in written]
    assert setpoint(base)[0] == 0
    assert [path.stat().st_mtime_ns for path in written] == stamps
    assert json.loads((tmp_path / "run/metrics.json").read_text())["student"]["parameters"] > 0


def test_two_processes_in_one_folder_are_refused(base, setpoint, tmp_path):
    with RunFolder(tmp_path / "run"):
        code, stderr = setpoint(base)
    assert code == 2
    assert stderr == (
        f"setpoint: run folder '{tmp_path}/run' is in use by process {os.getpid()}: wait for it, or choose another with"
        " --run-dir\n"
    )
