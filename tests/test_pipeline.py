"""The whole line on small made data: text with a tiny BERT made on the spot, images from scikit-learn's digits."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification, BertConfig, BertForTokenClassification

from setpoint import FrozenTeacher, pipeline
from setpoint.errors import DataError, FingerprintError, ModelError, RunError, SetpointError
from setpoint.pretraining import train_tokenizer
from setpoint.recipe_file import parse_recipe

NAMES = {"PER": ["anna", "bob", "carla"], "LOC": ["paris", "rome", "oslo"]}
TAGS = ["O", "B-LOC", "B-PER"]
SMALL = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 32,
}  # fmt: skip


def sentences(n, offset=0):
    """Sentences whose entities can be told by the word alone."""
    lines = []
    for i in range(offset, offset + n):
        person, place = NAMES["PER"][i % 3], NAMES["LOC"][(i // 3) % 3]
        words = [(person, "B-PER"), ("lives", "O"), ("in", "O"), (place, "B-LOC")][: 2 + i % 3]
        lines += [f"{word} {tag}" for word, tag in words] + [""]
    return "\n".join(lines)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    """A tiny BERT whose head has its labels in another order than the data."""
    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = train_tokenizer([sentences(30).replace("B-", "").replace("\n", " ")], vocab_size=120)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, id2label={0: "B-PER", 1: "O", 2: "B-LOC"},
        label2id={"B-PER": 0, "O": 1, "B-LOC": 2},
    )  # fmt: skip
    BertForTokenClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def ner(tmp_path, teacher_folder):
    """A recipe for the tiny teacher, as plain data."""
    for split, n, offset in (("train", 48, 0), ("dev", 12, 48), ("test", 12, 60)):
        (tmp_path / f"{split}.conll").write_text(sentences(n, offset))
    return {
        "name": "tiny",
        "task": "token-classification",
        "data": {"train": "./train.conll", "validation": "./dev.conll", "test": "./test.conll", "max_length": 16},
        "teacher": {"model": str(teacher_folder), "train": {"epochs": 6, "batch_size": 8, "learning_rate": 5e-3}},
        "student": {"model": {"kind": "config", "config": SMALL}},
        "temperature": 2,
        "targets": {"dtype": "float32", "shard_examples": 20},
        "train": {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3},
        "seeds": [0, 1],
    }


def run(raw, tmp_path, folder="run", **options):
    return pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / folder, **options)


def weights(folder):
    return {str(f.relative_to(folder)): load_file(f) for f in sorted(folder.rglob("model.safetensors"))}


def assert_same_run(a, b):
    """Bit-equal weights, and metrics that are the same but for the clock."""
    one, two = weights(a), weights(b)
    assert one.keys() == two.keys()
    for file, tensors in one.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, two[file][name]), (file, name)
    assert timeless(a / "metrics.json") == timeless(b / "metrics.json")


def timeless(file):
    def strip(value):
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k != "latency_ms"}
        return value

    return strip(json.loads(file.read_text()))


def test_a_run_leaves_what_it_promises(ner, tmp_path):
    metrics = run(ner, tmp_path)
    assert json.loads((tmp_path / "run/metrics.json").read_text()) == json.loads(json.dumps(metrics))
    for name in ("teacher", "student_hard", "student"):
        record = metrics[name]
        assert {"metrics", "parameters", "bytes", "latency_ms"} <= record.keys()
        assert record["latency_ms"] > 0
        assert set(record["metrics"]["tokens"]) == {*TAGS, "micro avg", "macro avg", "weighted avg"}
    assert metrics["teacher"]["metrics"]["f1"] == 1.0  # the task is easy: the line works from end to end
    assert metrics["student"]["metrics"]["f1"] > 0.9
    assert metrics["student_initial"]["metrics"]["f1"] < 0.5
    assert metrics["student"]["parameters"] < metrics["teacher"]["parameters"]
    size = (tmp_path / "run/student/seed-0/model.safetensors").stat().st_size
    assert metrics["student"]["bytes"] == size
    assert list(metrics["student"]["seeds"]) == ["0", "1"]
    scores = [[r["metrics"]["f1"] for r in metrics[k]["seeds"].values()] for k in ("student", "student_hard")]
    assert metrics["gain"]["mean"] == pytest.approx(sum(scores[0]) / 2 - sum(scores[1]) / 2)
    student = AutoModelForTokenClassification.from_pretrained(tmp_path / "run/student/seed-1")
    assert list(student.config.id2label.values()) == TAGS
    page = (tmp_path / "run/report.html").read_text()
    assert "tiny" in page
    assert not any((tmp_path / "run/checkpoints").rglob("*.*"))


def test_running_again_does_nothing_and_a_new_temperature_only_its_students(ner, tmp_path):
    first = run(ner, tmp_path)
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.safetensors")}
    assert run(ner, tmp_path) == first
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.safetensors")} == stamps
    run(ner | {"temperature": 5}, tmp_path)
    changed = {str(f.relative_to(tmp_path / "run")) for f, stamp in stamps.items() if f.stat().st_mtime_ns != stamp}
    assert changed == {"student/seed-0/model.safetensors", "student/seed-1/model.safetensors"}


def test_another_test_split_is_measured_without_training_again(ner, tmp_path, monkeypatch):
    first = run(ner, tmp_path)
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.safetensors")}
    (tmp_path / "test.conll").write_text("anna O\n\nrome B-PER\n")
    asked = []
    monkeypatch.setattr("setpoint.targets.teacher.FrozenTeacher.__call__", counting(FrozenTeacher.__call__, asked))
    second = run(ner, tmp_path)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.safetensors")} == stamps
    assert second["teacher"]["metrics"]["f1"] != first["teacher"]["metrics"]["f1"]
    # The split is read once by each of 6 models (teacher, untrained, 2 hard, 2 distilled); single calls are latency.
    assert sorted(asked)[-6:] == [2] * 6
    assert sorted(asked)[:-6] == [1] * (len(asked) - 6)


def counting(call, asked):
    def wrapped(self, batch):
        asked.append(len(batch["labels"]))
        return call(self, batch)

    return wrapped


def test_tracker_logs_outlive_the_checkpoints(ner, tmp_path):
    train = ner["train"] | {"arguments": {"report_to": "tensorboard"}}
    run(ner | {"train": train, "seeds": [0]}, tmp_path)
    for student in ("student", "student_hard"):
        assert list((tmp_path / "run/logs" / student / "seed-0").rglob("events.out.tfevents.*"))
    assert not (tmp_path / "run/checkpoints/student/seed-0").exists()


def test_live_and_stored_targets_train_the_same_student(ner, tmp_path):
    stored = run(ner, tmp_path, "stored")
    live = run(ner | {"targets": {"kind": "live"}}, tmp_path, "live")
    assert live["student"]["metrics"]["f1"] == pytest.approx(stored["student"]["metrics"]["f1"], abs=0.02)
    a = load_file(tmp_path / "stored/student/seed-0/model.safetensors")
    b = load_file(tmp_path / "live/student/seed-0/model.safetensors")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=2e-3)


def test_another_teacher_in_the_same_folder_is_refused(ner, tmp_path):
    run(ner, tmp_path)
    other = ner | {"teacher": ner["teacher"] | {"train": ner["teacher"]["train"] | {"epochs": 1}}}
    with pytest.raises(RunError, match="holds a teacher made from another 'teacher.train.epochs': start over with"):
        run(other, tmp_path)
    (tmp_path / "train.conll").write_text(sentences(40))
    with pytest.raises(RunError, match="holds a teacher made from another 'data.content.train'"):
        run(ner, tmp_path)
    assert run(ner, tmp_path, fresh=True)["teacher"]["metrics"]["f1"] > 0


def test_a_store_of_another_teacher_is_refused(ner, tmp_path):
    run(ner, tmp_path)
    (tmp_path / "run/stages/targets.json").unlink()
    file = tmp_path / "run/teacher/model.safetensors"
    model = BertForTokenClassification.from_pretrained(file.parent)
    model.classifier.bias.data += 1
    model.save_pretrained(file.parent)
    with pytest.raises(FingerprintError, match="was built for another teacher: "):
        run(ner, tmp_path)


# Each moment is a function of the code that is replaced by a bomb after so many calls.
MOMENTS = {
    "in the teacher's training": ("setpoint.training:DistillationTrainer.compute_loss", 20),
    "between two shards of the store": ("setpoint.targets.teacher:FrozenTeacher.__call__", 2),
    "in the middle of a checkpoint": ("setpoint.training:DistillationTrainer._save_rng_state", 8),
    "before a student is in its place": ("setpoint.models:sync_folder", 3),
    "in the evaluation": ("setpoint.evaluation:agreement", 2),
}

BOMB = """
import importlib, os, signal, sys
where, calls, recipe, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
module, _, path = where.partition(":")
owner = importlib.import_module(module)
*owners, name = path.split(".")
for step in owners:
    owner = getattr(owner, step)
real, count = getattr(owner, name), 0
def bomb(*args, **kwargs):
    global count
    count += 1
    if count > calls:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(owner, name, bomb)
from setpoint.pipeline import run
run(recipe, folder)
print("finished")
"""


@pytest.fixture(scope="module")
def unbroken():
    """The folder of the run that was never killed, once there is one."""
    return []


@pytest.mark.slow
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_run_killed_at_any_moment_resumes_to_the_same_result(ner, tmp_path, moment, unbroken):
    where, calls = MOMENTS[moment]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(ner | {"student": ner["student"] | {"dropout": 0.2}}))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(bomb_calls, folder):
        command = [sys.executable, "-c", BOMB, where, str(bomb_calls), str(recipe), str(tmp_path / folder)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    killed = start(calls, "killed")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert not (tmp_path / "killed/metrics.json").exists()
    resumed = start(10**9, "killed")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    if not unbroken:
        whole = start(10**9, "unbroken")
        assert whole.returncode == 0, whole.stderr[-2000:]
        unbroken.append(tmp_path / "unbroken")
    assert_same_run(tmp_path / "killed", unbroken[0])


def test_ctrl_c_says_how_to_go_on(ner, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(ner | {"train": ner["train"] | {"epochs": 5000}}))
    command = [sys.executable, "-m", "setpoint", "run", str(recipe), "--run-dir", str(tmp_path / "run")]
    # A shell that runs pytest in the background has it ignore SIGINT, and children inherit that.
    interruptible = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **interruptible
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not list(tmp_path.glob("run/checkpoints/student_hard/*/*/.complete")) and time.monotonic() < deadline:
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert stderr.strip().splitlines()[-1] == "setpoint: stopped; the same command continues where it stopped"
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": {"train": "./none.conll"}}, DataError, "data.train '{folder}/none.conll' does not exist: give"),
        ({"data": {"train": "./empty.conll"}}, DataError, "data.train has no examples: give a split with some"),
        ({"data": {"train": "./tagless.conll"}}, DataError, "{folder}/tagless.conll, line 2: token 'lives' has no tag"),
        (
            {"data": {"test": "./other.conll"}},
            DataError,
            "data.test has the label 'B-ORG', which is none of O, B-LOC, B-PER: mend the data, or list every label in",
        ),
        (
            {"data": {"labels": ["O", "B-PER", "B-ORG", "B-LOC"]}, "teacher": {"train": None}},
            ModelError,
            "the teacher has 3 classes where the data have 4: give a teacher with the labels O, B-PER, B-ORG, B-LOC",
        ),
        (
            {"data": {"train": "./other.conll", "validation": "./other.conll", "test": "./other.conll"},
             "teacher": {"train": None}},
            ModelError,
            "the labels of teacher and data differ in 'B-LOC', 'B-ORG': give a teacher with the labels of the data, or",
        ),
        (
            {"teacher": {"model": "./nowhere"}},
            ModelError,
            "tokenizer '{folder}/nowhere' does not exist: give a folder that is there, or a hub id",
        ),
        (
            {"student": {"model": {"kind": "layers", "layers": 5}}},
            ModelError,
            "student.model.layers is 5 while the teacher has 2 layers: give at most 2, or a list from",
        ),
        (
            {"student": {"model": {"kind": "config", "config": {"model_type": "bert", "hiden_size": 8}}}},
            ModelError,
            "the config of model_type 'bert' has no field 'hiden_size': did you mean 'hidden_size'?",
        ),
        (
            {"student": {"freeze": {"names": ["*.nothing.*"]}}},
            ModelError,
            "student.freeze.names has '*.nothing.*', which matches no parameter: mend the pattern",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(ner, tmp_path, change, error, message):
    (tmp_path / "empty.conll").write_text("\n\n")
    (tmp_path / "tagless.conll").write_text("anna B-PER\nlives\n")
    (tmp_path / "other.conll").write_text("anna B-PER\nat O\nacme B-ORG\n\n" * 4)
    raw = {key: ner[key] | change.get(key, {}) if isinstance(ner[key], dict) else ner[key] for key in ner}
    with pytest.raises(error) as raised:
        run(raw, tmp_path)
    assert isinstance(raised.value, SetpointError)
    assert str(raised.value).startswith(message.format(folder=tmp_path))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run/metrics.json").exists()


def test_a_teacher_without_a_head_has_to_be_trained(ner, tmp_path, teacher_folder):
    bare = tmp_path / "bare"
    model = BertForTokenClassification.from_pretrained(teacher_folder)
    model.bert.save_pretrained(bare)
    raw = ner | {"teacher": {"model": str(bare)}}
    with pytest.raises(ModelError, match="has no trained head for this task: say how in teacher.train"):
        run(raw, tmp_path)


def test_other_students(ner, tmp_path):
    """From a config with a tokenizer of its own, pre-trained on raw text; with LoRA; partly frozen."""
    (tmp_path / "text.txt").write_text("\n".join(f"anna lives in paris {i % 7}" for i in range(40)))
    students = {
        "pretrained": {
            "model": {"kind": "config", "config": SMALL | {"hidden_size": 8}},
            "pretrain": {
                "text": "./text.txt",
                "new_tokenizer": True,
                "vocab_size": 110,
                "max_length": 16,
                "train": {"epochs": 1},
            },
        },
        "lora": {"model": {"kind": "layers", "layers": [1]}, "lora": {"rank": 2}},
        "frozen": {"model": {"kind": "layers", "layers": 2}, "freeze": {"embeddings": True, "keep_top": 1}},
    }
    for name, student in students.items():
        metrics = run(ner | {"student": student, "seeds": [0], "hard_baseline": False}, tmp_path, name)
        assert metrics["gain"] is None
        assert metrics["student"]["metrics"]["f1"] > metrics["student_initial"]["metrics"]["f1"] - 1e-9
        saved = load_file(tmp_path / name / "student/seed-0/model.safetensors")
        assert not any("lora" in key for key in saved)
    teacher = load_file(tmp_path / "frozen/teacher/model.safetensors")
    student = load_file(tmp_path / "frozen/student/seed-0/model.safetensors")
    for key in teacher:
        same = torch.equal(teacher[key], student[key])
        assert same == ("embeddings" in key or "layer.0" in key), key
