"""The whole line on small made data: text with a tiny BERT made on the spot, images from scikit-learn's digits."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file
from seqeval.metrics import f1_score
from transformers import AutoModelForTokenClassification, AutoTokenizer, BertForTokenClassification

from setpoint import FrozenTeacher, models, pipeline
from setpoint.errors import DataError, FingerprintError, LossError, ModelError, RunError
from setpoint.recipe_file import parse_recipe
from setpoint.training import DistillationTrainer
from tiny import SMALL, TAGS, save_teacher, sentences
from worker import die, end, start_run, written

TWO = {"seeds": [0, 1]}


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
    metrics = run(ner | TWO, tmp_path)
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
    first = run(ner | TWO, tmp_path)
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.safetensors")}
    assert run(ner | TWO, tmp_path) == first
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.safetensors")} == stamps
    run(ner | TWO | {"temperature": 5}, tmp_path)
    changed = {str(f.relative_to(tmp_path / "run")) for f, stamp in stamps.items() if f.stat().st_mtime_ns != stamp}
    assert changed == {"student/seed-0/model.safetensors", "student/seed-1/model.safetensors"}


def test_another_test_split_is_measured_without_training_again(ner, tmp_path, monkeypatch):
    first = run(ner | TWO, tmp_path)
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.safetensors")}
    (tmp_path / "test.conll").write_text("anna O\n\nrome B-PER\n")
    asked = []
    monkeypatch.setattr("setpoint.targets.teacher.FrozenTeacher.__call__", counting(FrozenTeacher.__call__, asked))
    second = run(ner | TWO, tmp_path)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "run").rglob("*.safetensors")} == stamps
    assert second["teacher"]["metrics"]["f1"] != first["teacher"]["metrics"]["f1"]
    # The split is read once by each of 6 models (teacher, untrained, 2 hard, 2 distilled); single calls are latency.
    # The explanation asks one student, of 12 validation and 48 training examples, and nothing of the test split.
    assert sorted(asked)[-8:] == [2] * 6 + [12, 48]
    assert sorted(asked)[:-8] == [1] * (len(asked) - 8)


def counting(call, asked):
    def wrapped(self, batch):
        asked.append(len(batch["labels"]))
        return call(self, batch)

    return wrapped


def test_a_damaged_or_lost_store_is_made_again(ner, tmp_path):
    first = run(ner, tmp_path)
    shard = tmp_path / "run/targets/shard-00001.arrow"
    whole = shard.read_bytes()
    for damage in (lambda: shard.write_bytes(whole[:100]), shard.unlink, lambda: shutil.rmtree(shard.parent)):
        damage()
        assert run(ner | {"temperature": 3}, tmp_path)["teacher"]["metrics"] == first["teacher"]["metrics"]
        assert shard.read_bytes() == whole


def test_a_lost_student_is_trained_again_to_the_same_weights(ner, tmp_path):
    run(ner | TWO, tmp_path)
    before = weights(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/student/seed-1")
    run(ner | TWO, tmp_path)
    after = weights(tmp_path / "run")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[f][name], after[f][name]) for f in before for name in before[f])


def test_a_file_that_changed_under_its_name_is_another_student(ner, tmp_path):
    (tmp_path / "student.json").write_text(json.dumps(SMALL))
    raw = ner | {"student": {"model": {"kind": "config", "config": "./student.json"}}, "hard_baseline": False}
    narrow = run(raw, tmp_path)["student"]["parameters"]
    (tmp_path / "student.json").write_text(json.dumps(SMALL | {"hidden_size": 32}))
    assert run(raw, tmp_path)["student"]["parameters"] > narrow


def test_starting_over_happens_only_once_the_data_are_right(ner, tmp_path):
    first = run(ner, tmp_path)
    with pytest.raises(DataError):
        run(ner | {"data": ner["data"] | {"train": "./none.conll"}}, tmp_path, fresh=True)
    assert run(ner, tmp_path) == first  # nothing was lost, nothing is done


def test_labels_from_the_teacher_alone(ner, tmp_path):
    """Hard distillation: α = 0, and the hard loss taken against the teacher's argmax."""
    hard = {"objective": {"alpha": 0, "hard": {"kind": "teacher_argmax"}}, "seeds": [0], "hard_baseline": False}
    metrics = run(ner | hard, tmp_path)
    assert metrics["student"]["agreement"]["top1"] > 0.9


def test_a_student_that_diverged_is_not_the_teachers_fault(ner, tmp_path):
    train = ner["train"] | {"learning_rate": 1e30}
    with pytest.raises(
        LossError, match=r"^example 'train-\d+' at step 2: the divergence loss of row 0 is nan at T = 2:"
    ):
        run(ner | {"train": train, "hard_baseline": False}, tmp_path)


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


# Each moment is a call of a function of the code, in whose place stands a bomb.
MOMENTS = {
    "in the teacher's training": ("setpoint.training:DistillationTrainer.compute_loss", 21),
    "between two shards of the store": ("setpoint.targets.teacher:FrozenTeacher.__call__", 3),
    "in the middle of a checkpoint": ("setpoint.training:DistillationTrainer._save_rng_state", 9),
    "before a student is in its place": ("setpoint.models:sync_folder", 4),
    "in the evaluation": ("setpoint.evaluation:latency_ms", 3),
}


@pytest.fixture(scope="module")
def unbroken():
    """The folder of the run that was never killed, once there is one."""
    return []


@pytest.mark.slow
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_run_killed_at_any_moment_resumes_to_the_same_result(ner, tmp_path, moment, unbroken):
    recipe = written(tmp_path, ner | TWO | {"student": ner["student"] | {"dropout": 0.2}})
    where, calls = MOMENTS[moment]
    die(start_run(recipe, tmp_path / "killed", where, calls))
    assert not (tmp_path / "killed/metrics.json").exists()
    end(start_run(recipe, tmp_path / "killed", where, 0))
    if not unbroken:
        end(start_run(recipe, tmp_path / "unbroken", where, 0))
        unbroken.append(tmp_path / "unbroken")
    assert_same_run(tmp_path / "killed", unbroken[0])


@pytest.mark.parametrize("how", [{"train_sampling_strategy": "group_by_length"}, {}])
def test_the_scores_of_an_epoch_are_of_each_example_against_its_own_labels(ner, tmp_path, how):
    arguments = how | {"per_device_eval_batch_size": 4}
    train = {"epochs": 3, "batch_size": 8, "learning_rate": 5e-3, "keep_best": True, "arguments": arguments}
    run(ner | {"train": train, "seeds": [0], "hard_baseline": False}, tmp_path)
    log = json.loads((tmp_path / "run/stages/student-seed-0.json").read_text())["result"]["log"]
    best = max(entry["eval_f1"] for entry in log if "eval_f1" in entry)
    assert best > 0.5
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "run/student/seed-0")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run/student/seed-0")
    assert best == pytest.approx(validation_f1(model, tokenizer, tmp_path / "dev.conll"), abs=1e-6)


def validation_f1(model, tokenizer, file):
    """Entity F1 of a file, sentence by sentence."""
    true, said = [], []
    for block in file.read_text().strip().split("\n\n"):
        pairs = [line.split() for line in block.splitlines()]
        pieces = tokenizer([[word for word, _ in pairs]], is_split_into_words=True, return_tensors="pt")
        tops = model(**pieces).logits[0].argmax(-1).tolist()
        first = {word: i for i, word in reversed([*enumerate(pieces.word_ids())]) if word is not None}
        true.append([tag for _, tag in pairs])
        said.append([model.config.id2label[tops[first[i]]] for i in range(len(pairs))])
    return f1_score(true, said)


@pytest.mark.parametrize("moment", ["while it learns", "after it was stopped early"])
def test_early_stopping_counts_on_after_a_power_cut(ner, tmp_path, monkeypatch, moment):
    train = {"epochs": 12, "batch_size": 8, "learning_rate": 3e-3, "early_stopping": 2}
    raw = ner | {"train": train, "seeds": [0], "hard_baseline": False}
    run(raw, tmp_path, "unbroken")
    log = json.loads((tmp_path / "unbroken/stages/student-seed-0.json").read_text())["result"]["log"]
    scores = [entry["eval_f1"] for entry in log if "eval_f1" in entry]
    assert len(scores) < 12  # it was stopped, and had counted

    class PowerCut(Exception):
        pass

    def cut(real, now):
        def wrapped(*arguments, **keywords):
            if now(*arguments):
                raise PowerCut
            return real(*arguments, **keywords)

        return wrapped

    last = 6 * len(scores) - 2  # a step of the last epoch, when the counter is at 1

    def at_last(trainer, *_):
        return "student" in trainer.args.output_dir and trainer.state.global_step == last

    with monkeypatch.context() as patch:
        if moment == "while it learns":
            patch.setattr(DistillationTrainer, "training_step", cut(DistillationTrainer.training_step, at_last))
        else:
            at_end = cut(models.save_model, lambda model, processor, folder, *_: folder.name == "seed-0")
            patch.setattr(models, "save_model", at_end)
        with pytest.raises(PowerCut):
            run(raw, tmp_path, "broken")
    run(raw, tmp_path, "broken")
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


@pytest.mark.slow
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


def test_classes_without_names_are_taken_in_the_order_that_the_recipe_says(ner, tmp_path, teacher_folder):
    """The same weights, named in their configuration or in the recipe, are the same teacher."""
    save_teacher(tmp_path / "unnamed", labels=("LABEL_0", "LABEL_1", "LABEL_2"))
    raw = ner | {"seeds": [0], "hard_baseline": False, "train": {"epochs": 1}}
    named = run(raw | {"teacher": {"model": str(teacher_folder)}}, tmp_path, "named")
    teacher = {"model": str(tmp_path / "unnamed"), "labels": ["B-PER", "O", "B-LOC"]}
    assert run(raw | {"teacher": teacher}, tmp_path, "by recipe")["teacher"]["metrics"] == named["teacher"]["metrics"]


def test_a_teacher_without_a_head_has_to_be_trained(ner, tmp_path, teacher_folder):
    bare = tmp_path / "bare"
    model = BertForTokenClassification.from_pretrained(teacher_folder)
    model.bert.save_pretrained(bare)
    raw = ner | {"teacher": {"model": str(bare)}}
    with pytest.raises(ModelError, match="has no trained head for this task: say how in teacher.train"):
        run(raw, tmp_path)


@pytest.mark.slow
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
