"""A label for each recording."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from setpoint import pipeline
from setpoint.errors import DataError, ModelError, RecipeError
from setpoint.recipe import DataRecipe
from setpoint.recipe_file import parse_recipe
from setpoint.targets.views import SeededViews
from setpoint.tasks import make_task
from sound import FILES, NET, RATE, TONES, WAV2VEC2, keyword_recipe, tone, wav, write_words

AST = {
    "model_type": "audio-spectrogram-transformer", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "patch_size": 8, "frequency_stride": 8, "time_stride": 8, "max_length": 21,
    "num_mel_bins": 16,
}  # fmt: skip


def task(**fields):
    return make_task("audio-classification", DataRecipe(dataset="none", sampling_rate=RATE, mel_bins=16, **fields))


def files(folder, **fields):
    where = {name: str(folder / file) for name, file in FILES.items() if name != "sampling_rate"}
    data = DataRecipe(**where, sampling_rate=RATE, mel_bins=16, **fields)
    return make_task("audio-classification", data)


def test_folders_of_files_and_tables_of_numbers_are_the_same_examples(tmp_path):
    write_words(tmp_path, (("train", 6), ("dev", 3), ("test", 3)))
    tables = files(tmp_path).load()
    for split, n, start in (("train", 6, 0), ("validation", 3, 6), ("test", 3, 9)):
        for i in range(start, start + n):
            word = list(TONES)[i % 3]
            (tmp_path / split / word).mkdir(parents=True, exist_ok=True)
            (tmp_path / split / word / f"{i}.wav").write_bytes(wav(tone(word, i)))
    folders = {split: str(tmp_path / split) for split in ("train", "validation", "test")}
    made = make_task("audio-classification", DataRecipe(**folders, sampling_rate=RATE, mel_bins=16))
    splits = made.load()
    assert splits.labels == tables.labels == ("high", "low", "mid")
    by_number = {e["id"].split("/")[-1]: e for e in made.encode(splits.train, None)}  # train-low/0.wav
    for number, example in enumerate(files(tmp_path).encode(tables.train, None)):
        same = by_number[f"{number}.wav"]
        assert same["labels"] == example["labels"]
        torch.testing.assert_close(same["input_values"], example["input_values"], atol=0.1, rtol=0)


def test_an_example_is_its_spectrogram_and_a_batch_is_padded(tmp_path):
    write_words(tmp_path)
    made = files(tmp_path)
    examples = made.encode(made.load().train, None)
    assert [e["id"] for e in examples[:2]] == ["train-0", "train-1"]
    assert examples[0]["input_values"].shape == (1 + len(tone("low", 0)) // 20, 16)
    batch = made.collate(None)(examples[:3])
    lengths = [len(e["input_values"]) for e in examples[:3]]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["input_values"].shape == (3, max(lengths), 16)
    assert batch["labels"].tolist() == [1, 2, 0]


def test_views_are_the_same_at_every_reading(tmp_path):
    write_words(tmp_path)
    made = files(tmp_path, augment=[{"kind": "sound", "shift": 0.05, "bands": 4, "columns": 3}], views=2)
    examples = made.encode(made.load().train, None)
    data = SeededViews(examples, partial(made.augment, steps=made.data.augment, examples=examples), 2)
    assert torch.equal(data[0]["input_values"], data[0]["input_values"])
    assert not torch.equal(data[0]["input_values"], data[24]["input_values"])  # the second view of the first
    assert data[24]["id"] == "train-0#1"


@pytest.mark.parametrize(
    ("name", "student", "data"),
    [
        ("net", NET, {"augment": {"kind": "sound", "bands": 2}, "views": 2}),
        ("wav2vec2", WAV2VEC2, {"features": "waveform"}),
        ("ast", AST, {"seconds": 0.2}),
    ],
)
def test_a_run_of_tones_from_data_to_report(name, student, data, tmp_path):
    raw = keyword_recipe(tmp_path, NET if name == "net" else student, student, **data)
    if name == "net":
        raw["train"]["epochs"] = 8
    metrics = pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")
    assert metrics["metric"] == "accuracy"
    assert metrics["teacher"]["metrics"]["classes"]["low"]["support"] == 3
    if name == "net":  # tones are easy; the transformers are only shown to run
        assert metrics["teacher"]["metrics"]["accuracy"] == 1
        assert metrics["student"]["metrics"]["accuracy"] >= 2 / 3 > metrics["student_initial"]["metrics"]["accuracy"]
    assert "## The targets" in (tmp_path / "run/report.md").read_text()
    assert (tmp_path / "run/report.html").stat().st_size > 1e6


def test_a_model_of_another_length_is_refused_before_it_trains(tmp_path):
    raw = keyword_recipe(tmp_path, AST, NET, seconds=0.3)
    with pytest.raises(ModelError, match="the teacher cannot read data.features log_mel of 0.3 s") as error:
        pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")
    assert str(error.value).endswith("set data.features, data.mel_bins and data.seconds to what it takes")
    assert not (tmp_path / "run/teacher").exists()


def test_a_model_of_samples_is_refused_for_spectrograms(tmp_path):
    raw = keyword_recipe(tmp_path, WAV2VEC2, NET)
    with pytest.raises(ModelError, match="the teacher cannot read data.features log_mel of recordings of any length"):
        pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")


@pytest.mark.parametrize(
    ("audio", "sentence"),
    [
        ("none.wav", "example 'train-1' of data.train names 'none.wav', which is no file"),
        ("bad.wav", "audio of example 'train-1' cannot be read"),
        ([[0.1], [0.2]], r"example 'train-1' of data.train has \[\[0.1\], \[0.2\]\] in column 'audio': give a .wav"),
        ([0.5, 3.0], "audio of example 'train-1' has values from 0.5 to 3.0: give fractions from -1 to 1"),
        (None, "example 'train-1' of data.train has null in column 'audio'"),
    ],
)
def test_what_is_no_recording_is_refused_by_its_example(audio, sentence, tmp_path):
    write_words(tmp_path, (("dev", 3), ("test", 3)))
    (tmp_path / "bad.wav").write_bytes(wav(tone("low", 1))[:50])
    (tmp_path / "good.wav").write_bytes(wav(tone("low", 1)))
    good = "good.wav" if audio == "bad.wav" else [0.0, 0.1]
    rows = [{"audio": one, "label": word} for one, word in ((good, "low"), (audio, "mid"), (good, "high"))]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = files(tmp_path)
    with pytest.raises(DataError, match=sentence):
        made.encode(made.load().train, None)


def test_an_augmentation_of_images_is_none_of_sound_nor_the_other_way(tmp_path):
    raw = keyword_recipe(tmp_path, NET, NET, augment={"pixels": 1})
    with pytest.raises(
        RecipeError, match="'data.augment' has the kind 'shift', which audio-classification does not know"
    ):
        pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")
    digits = {"dataset": "digits", "augment": {"kind": "sound", "shift": 0.1}}
    convnet = {"kind": "config", "config": {"model_type": "setpoint-convnet", "widths": [4]}}
    raw |= {"task": "image-classification", "data": digits, "teacher": raw["teacher"] | {"model": convnet}}
    raw["student"] = {"model": convnet}
    with pytest.raises(RecipeError, match="'sound', which image-classification does not know: give one of shift, flip"):
        pipeline.run(parse_recipe(raw), tmp_path / "run")


def test_how_sound_is_read_is_on_record():
    found = task(seconds=0.5).preprocessing()["sound"]
    assert found == {
        "sampling_rate": RATE, "features": "log_mel", "mel_bins": 16, "seconds": 0.5, "frames": None,
    }  # fmt: skip


def test_answers_are_labels_with_their_probabilities():
    made = task()
    samples = [made.read_input(tone(word, 0), "input") for word in TONES]
    assert [len(e["input_values"]) for e in made.encode_inputs(samples, None)] == [1 + len(s) // 20 for s in samples]
    (answer,) = made.answers(samples[:1], [np.array([[0.25, 0.75]])], ("low", "mid"))
    assert answer == {"label": "mid", "probability": 0.75, "probabilities": {"low": 0.25, "mid": 0.75}}
