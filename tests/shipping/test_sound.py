"""Students of sound: exported, asked about files, served, and loaded by transformers alone."""

import json

import numpy as np
import pytest
from fastapi.testclient import TestClient
from transformers import pipeline

from setpoint.errors import DataError, RunError
from setpoint.insight.model_card import model_card
from setpoint.shipping.export import export
from setpoint.shipping.limits import Limits
from setpoint.shipping.predict import predict_files
from setpoint.shipping.refresh import refresh
from setpoint.shipping.server import make_app
from setpoint.shipping.shipped import Shipped
from setpoint.shipping.versions import Served
from sound import CTC, NET, RATE, TONES, WAV2VEC2, ctc_recipe, keyword_recipe, tone, wav

WAVES = {"features": "waveform", "frames": {"window": 25, "stride": 20}}
SHORT = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}


def run(once, name, make):
    from setpoint import pipeline as line
    from setpoint.recipe_file import parse_recipe

    def finish(folder):
        raw = make(folder)
        raw["teacher"]["train"] = raw["train"] = SHORT
        line.run(parse_recipe(raw, folder=folder), folder / "run")

    return once(name, finish) / "run"


@pytest.fixture(scope="session")
def words_run(once):
    return run(once, "sound-words", lambda folder: keyword_recipe(folder, NET, NET))


@pytest.fixture(scope="session")
def ctc_run(once):
    return run(once, "sound-ctc", lambda folder: ctc_recipe(folder, CTC, CTC))


@pytest.fixture(scope="session")
def waves_run(once):
    return run(once, "sound-waves", lambda folder: ctc_recipe(folder, WAV2VEC2, WAV2VEC2, **WAVES))


@pytest.fixture(scope="session")
def words_onnx(words_run):
    return export(words_run, "onnx")[0]


def test_a_student_of_spectrograms_answers_about_files_as_about_numbers(words_onnx, tmp_path):
    shipped = Shipped.open(words_onnx)
    assert shipped.manifest.sound.sampling_rate == RATE
    for i, word in enumerate(TONES):
        (tmp_path / f"{i}.wav").write_bytes(wav(tone(word, i)))
    assert predict_files(words_onnx, [tmp_path], tmp_path / "out.jsonl") == 3
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer["file"] for answer in answers] == [str(tmp_path / f"{i}.wav") for i in range(3)]
    expected = shipped.predict([tone(word, i) for i, word in enumerate(TONES)])
    for answer, other in zip(answers, expected, strict=True):
        assert answer["probability"] == pytest.approx(other["probability"], abs=0.02)  # the file has 16 bits
        assert answer["probabilities"].keys() == set(TONES)
    with pytest.raises(DataError, match=r"audio of example 'input 0' is 'x': give a .wav file, or a list of numbers"):
        shipped.predict(["x"])


def test_it_is_served(words_onnx):
    served = Served(words_onnx, threads=1)
    with TestClient(make_app(served, Limits())) as client:
        schema = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
        items = schema["application/json"]["schema"]["properties"]["inputs"]["items"]
        assert items == {"type": "array", "items": {"type": "number"}}
        samples = tone("low", 0).tolist()
        found = client.post("/predict", json={"inputs": [samples]}).json()["predictions"]
        (expected,) = served.shipped.predict([samples])
        assert found[0]["label"] == expected["label"]
        refused = client.post("/predict", json={"inputs": [[2.0]]})
        assert refused.status_code == 422
        assert "give fractions from -1 to 1" in refused.json()["detail"]


def test_a_student_of_transcripts_is_the_same_in_onnx(ctc_run, tmp_path):
    place, manifest, _ = export(ctc_run, "onnx", out=tmp_path / "student")
    assert manifest.temperature == 1
    assert manifest.parity.largest <= 1e-4 * manifest.parity.scale
    assert manifest.validation.value == pytest.approx(manifest.validation.pytorch)
    samples = [np.concatenate([tone("low", i), tone("high", i)]) for i in range(3)]
    shipped, plain = Shipped.open(place), export(ctc_run, "safetensors", out=tmp_path / "plain")[0]
    for answer, other in zip(shipped.predict(samples), Shipped.open(plain).predict(samples), strict=True):
        assert answer["text"] == other["text"]
        assert answer["probability"] == pytest.approx(other["probability"], abs=1e-5)
    assert {file.name for file in plain.iterdir()} == {"config.json", "model.safetensors", "setpoint.json"}


def test_transformers_alone_says_what_a_student_of_samples_says(waves_run, tmp_path):
    place, _, _ = export(waves_run, "safetensors", out=tmp_path / "student")
    samples = np.concatenate([tone("low", 0), tone("high", 0)])
    (expected,) = Shipped.open(place).predict([samples])
    found = pipeline("automatic-speech-recognition", str(place))({"raw": samples, "sampling_rate": RATE})
    assert " ".join(found["text"].split()) == expected["text"]


@pytest.mark.slow
def test_a_student_of_samples_is_the_same_in_onnx(waves_run, tmp_path):
    place, manifest, _ = export(waves_run, "onnx", out=tmp_path / "student")
    assert manifest.inputs == ("input_values", "attention_mask")
    assert manifest.parity.largest <= 1e-4 * manifest.parity.scale
    long, short = np.concatenate([tone("low", 0), tone("high", 0)]), tone("mid", 1)
    together = Shipped.open(place).predict([long, short])
    assert [answer["text"] for answer in together] == [
        Shipped.open(place).predict([x])[0]["text"] for x in (long, short)
    ]


def test_the_card_says_how_to_ask_it(words_run, waves_run):
    assert 'Shipped.open("path/to/this/folder")' in model_card(words_run)
    assert 'pipeline("automatic-speech-recognition", "path/to/this/folder")' in model_card(waves_run)


def test_what_refreshing_does_not_know_is_told(words_run, tmp_path):
    with pytest.raises(RunError, match="the run is of audio-classification, which setpoint refresh does not know: run"):
        refresh(words_run, tmp_path / "new.jsonl")
