"""Runs in several processes (torchrun, two on the CPU): the same run as in one, with half the batch in each."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from setpoint import pipeline
from setpoint.recipe_file import parse_recipe


def recipe(batch_size, **changes):
    """No batch normalisation, which would see half of a batch in each process, no dropout, and no short last batch."""

    def model(width):
        config = {"model_type": "vit", "hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2,
                  "intermediate_size": 2 * width, "image_size": 8, "patch_size": 4, "num_channels": 1,
                  "hidden_dropout_prob": 0.0}  # fmt: skip
        return {"model": {"kind": "config", "config": config}}

    train = {"epochs": 3, "batch_size": batch_size, "learning_rate": 1e-2}
    return {
        "name": "digits", "task": "image-classification", "data": {"dataset": "digits", "limit": 384},
        "teacher": model(32) | {"train": train}, "student": model(8), "temperature": 4,
        "targets": {"dtype": "float32"}, "train": train, "hard_baseline": False, "seeds": [0],
    } | changes  # fmt: skip


def torchrun(tmp_path, raw):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "setpoint", "run", str(file), "--run-dir", str(tmp_path / "two"), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)


@pytest.mark.slow
def test_two_processes_tune_and_train_as_one_with_twice_the_batch(tmp_path):
    tune = {"search": {"temperature": [1, 2, 4, 8]}, "budget": "4 trials", "finalists": 2, "repeats": 2}
    result = torchrun(tmp_path, recipe(16, tune=tune))
    assert result.returncode == 0, result.stderr[-3000:]
    summary = json.loads(result.stdout)  # of one process, though two have run
    alone = pipeline.run(parse_recipe(recipe(32, tune=tune)), tmp_path / "one")
    assert summary["tuning"] == alone["tuning"]
    for name in ("teacher", "student/seed-0"):
        one, two = (load_file(tmp_path / f"{run}/{name}/model.safetensors") for run in ("one", "two"))
        for key in one:  # attention takes no notice of the key's bias: its gradient is rounding, which Adam blows up
            if not key.endswith("key.bias"):
                torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-4, msg=f"{name}: {key}")
    scores = [json.loads((tmp_path / run / "tuning.json").read_text())["candidates"] for run in ("one", "two")]
    for one, two in zip(*scores, strict=True):
        assert [s["steps"] for s in one["scores"]] == [s["steps"] for s in two["scores"]]
        assert [s["loss"] for s in one["scores"]] == pytest.approx([s["loss"] for s in two["scores"]], abs=1e-3)


@pytest.mark.slow
def test_a_student_is_pretrained_together_before_it_is_trained(ner, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("anna lives in paris\nbob lives in rome\n" * 24)
    how = {"text": str(text), "max_length": 16, "train": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3}}
    raw = ner | {"student": ner["student"] | {"pretrain": how}, "seeds": [0], "hard_baseline": False}
    result = torchrun(tmp_path, raw)
    assert result.returncode == 0, result.stderr[-3000:]
    log = json.loads((tmp_path / "two/stages/student-pretrained.json").read_text())["result"]["log"]
    assert log[-1]["step"] == 2 * 48 // (2 * 8)  # half of each step's batch in each process
    assert set(json.loads(result.stdout)["student"]["seeds"]) == {"0"}


@pytest.mark.slow
def test_two_processes_learn_inner_states_as_one_with_twice_the_batch(ner, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("anna lives in paris\nbob lives in rome with carla\ncarla\n" * 16)
    ends = []
    for name, size in (("two", 8), ("one", 16)):
        train = {"epochs": 2, "batch_size": size, "learning_rate": 1e-2, "optimizer": "sgd", "scheduler": "constant"}
        train["arguments"] = {"max_grad_norm": 0.0}  # clipped, a gradient of the wrong size could not be told
        how = {"objective": "features", "features": ["hidden", "relations"], "text": str(text), "train": train,
               "max_length": 16}  # fmt: skip
        config = ner["student"]["model"]["config"] | {"hidden_size": 8}
        student = {"model": {"kind": "config", "config": config}, "pretrain": how, "dropout": 0.0}
        raw = ner | {"student": student, "hard_baseline": False, "objective": {"features": ["relations"]}}
        if name == "two":
            result = torchrun(tmp_path, raw)
            assert result.returncode == 0, result.stderr[-3000:]
        else:
            pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "one")
        log = json.loads((tmp_path / name / "stages/student-pretrained.json").read_text())["result"]["log"]
        ends.append((log, load_file(tmp_path / name / "student-pretrained/model.safetensors")))
    (log, two), (log_of_one, one) = ends
    assert log[-1]["step"] == log_of_one[-1]["step"] == 2 * 48 // 16
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5, msg=key)


@pytest.mark.slow
def test_a_fault_ends_all_processes_with_one_sentence(tmp_path):
    result = torchrun(tmp_path, recipe(16, tune={"metric": "rouge"}))
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if line.startswith("setpoint: ")]
    assert said == [
        "setpoint: tune.metric is 'rouge', which image-classification does not produce: give one of accuracy, f1, mcc"
    ]
