"""A small finished run of each task, and its exports, made once a session."""

import json
import os
import shutil

import pytest
from filelock import FileLock

from tiny import SMALL, ner_recipe


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Makes a folder of a name by a function, once for all of the session's processes."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name, function):
        folder, done = base / f"shipping-{name}", base / f"shipping-{name}.done"
        with FileLock(base / f"shipping-{name}.lock"):
            if not done.exists():
                folder.mkdir()
                function(folder)
                done.touch()
        return folder

    return make


def finish(raw, folder):
    from setpoint import pipeline
    from setpoint.recipe_file import parse_recipe

    pipeline.run(parse_recipe({"seeds": [0], "hard_baseline": False} | raw, folder=folder), folder / "run")


def make_ner(folder, teacher):
    raw = ner_recipe(folder, teacher) | {"seeds": [0, 1], "hard_baseline": False}
    dev = folder / "dev.conll"
    dev.write_text(dev.read_text().replace("bob B-PER", "bob O", 2).replace("in O", "in B-LOC", 1))
    finish(raw, folder)


def make_text(folder, teacher):
    words = ["bob", "paris"]
    for split, n in (("train", 48), ("dev", 16), ("test", 8)):
        rows = [
            {"first": "anna lives in " + "rome " * (i % 4), "second": words[i % 2], "label": ["no", "yes"][i % 2]}
            for i in range(n)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train = {"epochs": 2, "batch_size": 8, "learning_rate": 5e-3}
    raw = {
        "name": "pairs",
        "task": "text-classification",
        "data": {
            "train": "./train.jsonl", "validation": "./dev.jsonl", "test": "./test.jsonl", "max_length": 24,
            "text": "first", "text_pair": "second",
        },
        "teacher": {"model": {"kind": "config", "config": SMALL}, "tokenizer": str(teacher), "train": train},
        "student": {"model": {"kind": "config", "config": SMALL}},
        "train": train,
    }  # fmt: skip
    finish(raw, folder)


def make_image(folder):
    config = {"model_type": "setpoint-convnet", "widths": [4, 8]}
    train = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-2}
    raw = {
        "name": "digits",
        "task": "image-classification",
        "data": {"dataset": "digits", "limit": 80},
        "teacher": {"model": {"kind": "config", "config": config}, "train": train},
        "student": {"model": {"kind": "config", "config": config}},
        "train": train,
    }
    finish(raw, folder)


def export_to(folder, run, *format, **options):
    from setpoint.shipping.export import export

    export(run, *format, out=folder / "student", **options)


@pytest.fixture(scope="session")
def ner_run(once, teacher_folder):
    """Some of its validation tags are wrong, so that there is a temperature at which the student is calibrated."""
    return once("ner", lambda folder: make_ner(folder, teacher_folder)) / "run"


@pytest.fixture(scope="session")
def text_run(once, teacher_folder):
    """Pairs, in columns of other names; the second text tells the class."""
    return once("text", lambda folder: make_text(folder, teacher_folder)) / "run"


@pytest.fixture(scope="session")
def image_run(once):
    return once("image", make_image) / "run"


@pytest.fixture(scope="session")
def ner_onnx(once, ner_run):
    return once("ner-onnx", lambda folder: export_to(folder, ner_run, "onnx")) / "student"


@pytest.fixture(scope="session")
def ner_int8(once, ner_run, ner_onnx):
    def make(folder):
        with pytest.MonkeyPatch.context() as patch:  # the same file, without seconds of exporting it again
            copy = lambda *given: shutil.copy(ner_onnx / "model.onnx", given[3])  # noqa: E731
            patch.setattr("setpoint.shipping.export.write_onnx", copy)
            export_to(folder, ner_run, "onnx", quantize="int8")

    return once("ner-int8", make) / "student"


@pytest.fixture(scope="session")
def ner_safetensors(once, ner_run):
    return once("ner-safetensors", lambda folder: export_to(folder, ner_run, "safetensors")) / "student"


@pytest.fixture(scope="session")
def text_onnx(once, text_run):
    return once("text-onnx", lambda folder: export_to(folder, text_run, "onnx")) / "student"


@pytest.fixture(scope="session")
def image_onnx(once, image_run):
    return once("image-onnx", lambda folder: export_to(folder, image_run, "onnx")) / "student"
