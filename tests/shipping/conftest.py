"""A small finished run of each task, and its exports, made once a session."""

import json

import pytest

from tiny import SMALL, ner_recipe


def finished(raw, folder):
    from setpoint import pipeline
    from setpoint.recipe_file import parse_recipe

    pipeline.run(
        parse_recipe(raw | {"seeds": raw.get("seeds", [0]), "hard_baseline": False}, folder=folder), folder / "run"
    )
    return folder / "run"


@pytest.fixture(scope="session")
def ner_run(tmp_path_factory, teacher_folder):
    folder = tmp_path_factory.mktemp("ner")
    return finished(ner_recipe(folder, teacher_folder) | {"seeds": [0, 1]}, folder)


@pytest.fixture(scope="session")
def text_run(tmp_path_factory, teacher_folder):
    """Pairs, in columns of other names; the second text tells the class."""
    folder = tmp_path_factory.mktemp("text")
    for split, n in (("train", 48), ("dev", 16), ("test", 8)):
        rows = [
            {
                "first": "anna lives in " + "rome " * (i % 4),
                "second": ["bob", "paris"][i % 2],
                "label": ["no", "yes"][i % 2],
            }
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
        "teacher": {"model": {"kind": "config", "config": SMALL}, "tokenizer": str(teacher_folder), "train": train},
        "student": {"model": {"kind": "config", "config": SMALL}},
        "train": train,
    }  # fmt: skip
    return finished(raw, folder)


@pytest.fixture(scope="session")
def image_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
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
    return finished(raw, folder)


def exported(run, out, *format, **options):
    from setpoint.shipping.export import export

    return export(run, *format, out=out, **options)[0]


@pytest.fixture(scope="session")
def ner_onnx(ner_run, tmp_path_factory):
    return exported(ner_run, tmp_path_factory.mktemp("ner-onnx") / "student", "onnx")


@pytest.fixture(scope="session")
def ner_int8(ner_run, tmp_path_factory):
    return exported(ner_run, tmp_path_factory.mktemp("ner-int8") / "student", "onnx", quantize="int8")


@pytest.fixture(scope="session")
def ner_safetensors(ner_run, tmp_path_factory):
    return exported(ner_run, tmp_path_factory.mktemp("ner-safetensors") / "student", "safetensors")


@pytest.fixture(scope="session")
def text_onnx(text_run, tmp_path_factory):
    return exported(text_run, tmp_path_factory.mktemp("text-onnx") / "student", "onnx")


@pytest.fixture(scope="session")
def image_onnx(image_run, tmp_path_factory):
    return exported(image_run, tmp_path_factory.mktemp("image-onnx") / "student", "onnx")
