"""What is said in each recording."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import TrainingArguments, Wav2Vec2Config, Wav2Vec2ForCTC

from reference.ctc import probability, transcript_of
from setpoint import DistillationObjective, pipeline
from setpoint.audio import AudioCTCConfig, AudioCTCForCTC
from setpoint.errors import DataError, ModelError, RecipeError, SetpointWarning
from setpoint.insight.explain_run import explain_run
from setpoint.recipe import DataRecipe
from setpoint.recipe_audio import ConcatenateRecipe
from setpoint.recipe_file import parse_recipe
from setpoint.targets.teacher import FrozenTeacher
from setpoint.tasks import make_task
from setpoint.tasks.utterances import drawn
from setpoint.training import DistillationTrainer
from sound import CTC, FILES, RATE, TONES, WAV2VEC2, ctc_recipe, tone

NAMES = ("<pad>", "|", "a", "b")
WAVES = {"features": "waveform", "frames": {"window": 25, "stride": 20}}


def task(**fields):
    return make_task("speech-recognition", DataRecipe(dataset="none", sampling_rate=RATE, mel_bins=16, **fields))


def spoken(texts=("ab", "b a", "a", "bb", "", "ba b", "abab", "a b a"), seconds=0.3):
    """Encoded utterances of made sound, and their task."""
    made = task()
    split = Dataset.from_dict(
        {
            "id": [f"u{i}" for i in range(len(texts))],
            "audio": [tone("low", i, seconds).tolist() for i in range(len(texts))],
            "text": list(texts),
            "label": [[NAMES.index("|" if c == " " else c) for c in text] for text in texts],
        }
    )
    return made, made.encode(split, None)


def model(seed=0):
    torch.manual_seed(seed)
    config = {name: value for name, value in CTC.items() if name != "model_type"}
    names = dict(enumerate(NAMES))
    return AudioCTCForCTC(AudioCTCConfig(**config, id2label=names, label2id={v: k for k, v in names.items()}))


# ---------------------------------------------------------------------------------------------------- rows and loss


def test_rows_are_the_frames_of_each_recording():
    made, examples = spoken()
    assert [len(e["labels"]) for e in examples] == [-(-len(e["input_values"]) // 2) for e in examples]
    batch = made.collate(None)(examples[:3])
    counts = [len(e["labels"]) for e in examples[:3]]
    assert (batch["labels"] == 0).sum(1).tolist() == counts
    assert (batch["labels"] == -100).sum() == 3 * max(counts) - sum(counts)
    assert batch["task_targets"].tolist() == [[2, 3, 0], [3, 1, 2], [2, 0, 0]]
    assert batch["task_lengths"].tolist() == [2, 3, 1]
    assert model()(batch["input_values"], batch["attention_mask"]).logits.shape[:2] == batch["labels"].shape


def test_the_hard_loss_is_the_sum_over_transcripts_divided_by_all_frames():
    made, examples = spoken(("a", "ba", "b"), seconds=0.08)  # few frames, so that every path can be tried
    batch = made.collate(None)(examples)
    counts = [len(e["labels"]) for e in examples]
    assert max(counts) <= 6
    logits = torch.randn(3, max(counts), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = made.loss_rows(logits, batch, None)
    assert rows.labels is None
    assert rows.student_logits.shape == (sum(counts), 4)
    expected = [
        -math.log(probability(one[:n].tolist(), example["task_transcript"].classes))
        for one, n, example in zip(logits, counts, examples, strict=True)
    ]
    assert float(rows.hard_loss.mean()) == pytest.approx(sum(expected) / sum(counts), rel=1e-12)
    for part, loss in zip(rows.hard_loss.split(counts), expected, strict=True):
        assert float(part.sum()) == pytest.approx(loss, rel=1e-12)


def train(tmp_path, batch_size, accumulation, alpha=0.5):
    """One optimisation step of eight utterances, cut into micro-batches."""
    made, examples = spoken()
    student, teacher = model(1), FrozenTeacher(model(2), NAMES, reading=made)
    arguments = TrainingArguments(
        str(tmp_path), max_steps=1, per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulation,
        learning_rate=1e-2, optim="sgd", max_grad_norm=0, logging_steps=1, lr_scheduler_type="constant", use_cpu=True,
        save_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False, seed=0,
    )  # fmt: skip
    trainer = DistillationTrainer(
        model=student, args=arguments, objective=DistillationObjective(temperature=2.0, alpha=alpha), targets=teacher,
        train_dataset=examples, data_collator=made.collate(None), reading=made,
    )  # fmt: skip
    trainer.train()
    return trainer.state.log_history[0], student.state_dict()


def test_a_step_is_the_same_however_it_is_cut(tmp_path):
    whole, weights = train(tmp_path, 8, 1)
    before = model(1).state_dict()
    assert any(not torch.equal(weights[name], before[name]) for name in weights)
    for batch_size, accumulation in ((4, 2), (2, 4), (1, 8)):
        cut, again = train(tmp_path, batch_size, accumulation)
        for name in ("loss", "hard", "divergence"):
            assert cut[name] == pytest.approx(whole[name], rel=1e-5)
        for name, weight in weights.items():
            torch.testing.assert_close(again[name], weight, rtol=1e-5, atol=1e-7)


def test_the_logged_loss_is_that_of_all_paths(tmp_path):
    log, _ = train(tmp_path, 4, 2)
    made, examples = spoken()
    batch = made.collate(None)(examples)
    logits = model(1)(batch["input_values"], batch["attention_mask"]).logits.detach().double()
    total = sum(
        torch.nn.functional.ctc_loss(
            one[: len(e["labels"]), None].log_softmax(-1), torch.tensor([e["task_transcript"].classes]).long(),
            torch.tensor([len(e["labels"])]), torch.tensor([len(e["task_transcript"].classes)]), reduction="sum",
        )
        for one, e in zip(logits, examples, strict=True)
    )  # fmt: skip
    assert log["hard"] == pytest.approx(float(total) / sum(len(e["labels"]) for e in examples), rel=1e-5)


def test_a_transcript_too_long_for_its_frames_is_told_and_costs_nothing():
    with pytest.warns(SetpointWarning, match="1 transcripts are too long for the frames of their recordings"):
        made, examples = spoken(("a", "aaaaaaa"), seconds=0.08)
    batch = made.collate(None)(examples)
    logits = torch.zeros(*batch["labels"].shape, 4, requires_grad=True)
    rows = made.loss_rows(logits, batch, None)
    counts = [len(e["labels"]) for e in examples]
    assert rows.hard_loss[counts[0] :].tolist() == [0.0] * counts[1]
    rows.hard_loss.sum().backward()
    assert logits.grad[0].abs().max() > 0
    assert logits.grad[1].abs().max() == 0


# ---------------------------------------------------------------------------------------------------- scores, answers


def said(path):
    """Logits of a path of classes."""
    return 5.0 * np.eye(4)[path]


def test_scores_are_shares_of_words_and_characters_that_are_right():
    made, examples = spoken(("ab", "b a", "a"))
    logits = [said([2, 2, 0, 3]), said([3, 1, 3, 0]), said([0, 0, 0, 0])]  # "ab", "b b", ""
    references = made.references(examples)
    found = made.metrics(logits, references, NAMES)
    assert found["wer"] == pytest.approx(2 / 4)
    assert found["cer"] == pytest.approx(2 / 6)
    assert found["word_accuracy"] == pytest.approx(1 / 2)
    assert found["character_accuracy"] == pytest.approx(2 / 3)
    score = made.scores(logits, references, NAMES)["word_accuracy"]
    assert score(slice(0, 1)) == 1
    assert score(np.array([2, 2])) == 0
    worse = made.scores([said([2, 1, 2, 1, 2]), *logits[1:]], references, NAMES)
    assert worse["word_accuracy"](slice(0, 1)) == -2  # three words said where one was


def test_the_finer_loss_is_that_of_transcripts_a_frame():
    made, examples = spoken(("a", "ba", "b"), seconds=0.08)
    generator = np.random.default_rng(0)
    logits = [generator.normal(size=(len(e["labels"]), 4)) for e in examples]
    total = sum(
        -math.log(probability(z.tolist(), e["task_transcript"].classes)) for z, e in zip(logits, examples, strict=True)
    )
    assert made.loss(logits, made.references(examples)) == pytest.approx(total / sum(map(len, logits)))
    assert made.loss([z + math.nan for z in logits], made.references(examples)) == math.inf


def test_an_answer_is_the_transcript_with_its_probability_over_all_paths():
    made, logits = task(), np.random.default_rng(3).normal(size=(5, 4)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    (answer,) = made.answers([None], [shares], NAMES)
    path = logits.argmax(-1).tolist()
    letters = {1: " ", 2: "a", 3: "b"}
    assert answer["text"] == " ".join("".join(letters[k] for k in transcript_of(path)).split())
    assert answer["probability"] == pytest.approx(probability(logits.tolist(), transcript_of(path)), abs=1e-6)


def test_probabilities_of_all_transcripts_add_up_to_one():
    made, logits = task(), np.random.default_rng(4).normal(size=(3, 3))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    texts = {transcript_of(path) for path in itertools.product(range(3), repeat=3)}
    assert sum(probability(logits.tolist(), text) for text in texts) == pytest.approx(1)
    (answer,) = made.answers([None], [shares], NAMES[:3])
    assert 0 < answer["probability"] < 1


# ---------------------------------------------------------------------------------------------------- utterances


def test_utterances_are_of_one_speaker_and_the_same_each_time():
    speakers = ["x", "y", "x", "z", "y"]
    how = ConcatenateRecipe(least=2, most=4, examples=40)
    parts = drawn(speakers, 40, how, "train")
    assert {len(part) for part in parts} == {2, 3, 4}
    assert all(len({speakers[i] for i in part}) == 1 for part in parts)
    assert {i for part in parts for i in part} == set(range(5))
    assert drawn(speakers, 10, how, "train") == parts[:10]
    assert drawn(speakers, 40, how, "test") != parts


def test_an_utterance_is_its_recordings_one_after_the_other(tmp_path):
    raw = ctc_recipe(tmp_path)
    raw["data"]["concatenate"]["words"] = {"low": "l", "mid": "mm", "high": "h i"}
    made = make_task("speech-recognition", parse_recipe(raw, folder=tmp_path).data)
    splits = made.load()
    assert splits.labels == ("<pad>", "|", "h", "i", "l", "m")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (24, 8, 8)
    rows = [json.loads(line) for line in (tmp_path / "dev.jsonl").read_text().splitlines()]
    parts = drawn([row["speaker"] for row in rows], 8, made.data.concatenate, "validation")
    words = {"low": "l", "mid": "mm", "high": "h i"}
    for audio, text, part in zip(splits.validation["audio"], splits.validation["text"], parts, strict=True):
        np.testing.assert_allclose(audio, np.concatenate([rows[i]["audio"] for i in part]), atol=1e-6)
        assert text == " ".join(words[rows[i]["label"]] for i in part)
    del raw["data"]["concatenate"]["words"]["mid"]
    with pytest.raises(DataError, match="data.train has 'mid' in column 'label', of which data.concatenate.words does"):
        make_task("speech-recognition", parse_recipe(raw, folder=tmp_path).data).load()


# ---------------------------------------------------------------------------------------------------- runs


@pytest.mark.slow
def test_a_run_of_utterances_from_data_to_report(tmp_path):
    raw = ctc_recipe(tmp_path)
    raw["data"]["concatenate"]["examples"]["train"] = 48
    raw["teacher"]["train"] |= {"epochs": 20, "batch_size": 4, "learning_rate": 2e-2}
    raw["train"] = raw["teacher"]["train"] | {"keep_best": True}
    raw["data"]["concatenate"]["words"] = {"low": "l", "mid": "m", "high": "h"}
    metrics = pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")
    assert metrics["metric"] == "word_accuracy"
    assert metrics["beside"] == ["wer", "cer"]
    teacher, student, untrained = (metrics[name]["metrics"] for name in ("teacher", "student", "student_initial"))
    assert teacher["word_accuracy"] > 0.5
    assert student["word_accuracy"] > max(0.3, untrained["word_accuracy"])
    assert student["wer"] == pytest.approx(1 - student["word_accuracy"])
    assert {"top1", "kl"} == metrics["student"]["agreement"].keys()
    report = (tmp_path / "run/report.md").read_text()
    assert "&lt;pad&gt;" in report or "<pad>" in report
    again = explain_run(tmp_path / "run")
    assert again.rows > 0


def test_a_run_of_wav2vec2_whose_teacher_has_another_order_and_names_in_a_file(tmp_path):
    raw = ctc_recipe(tmp_path, student=WAV2VEC2, **WAVES)
    names = ["|", "d", "g", "h", "i", "l", "m", "o", "w", "<pad>"]
    fields = {name: value for name, value in WAV2VEC2.items() if name != "model_type"}
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(**fields, vocab_size=len(names), pad_token_id=9)).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf/vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    raw["teacher"] = {"model": "./hf"}
    raw["train"]["epochs"] = 1
    metrics = pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")
    assert {"wer", "cer"} <= metrics["student"]["metrics"].keys()
    config = json.loads((tmp_path / "run/student/seed-0/config.json").read_text())
    assert config["vocab_size"] == 10
    assert [config["id2label"][str(i)] for i in range(10)] == ["<pad>", *names[:-1]]


@pytest.mark.parametrize(
    ("who", "student", "frames", "sentence"),
    [
        ("student", CTC | {"subsampling": 4}, None, "the student has .* frames for example .* where data.frames, with"),
        ("teacher", CTC, {"window": 1, "stride": 4}, "the teacher has .* window 1 and stride 4, says"),
    ],
)
def test_another_frame_rate_is_refused(who, student, frames, sentence, tmp_path):
    raw = ctc_recipe(tmp_path, student=student, **({} if frames is None else {"frames": frames}))
    raw["teacher"]["train"]["epochs"] = 1
    with pytest.raises(ModelError, match=sentence) as error:
        pipeline.run(parse_recipe(raw, folder=tmp_path), tmp_path / "run")
    assert str(error.value).endswith("set data.frames to what teacher and student have, which is the same for both")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("objective.hard", {"objective": {"hard": {"label_smoothing": 0.1}}}),
        ("objective.wrong_teacher", {"objective": {"wrong_teacher": 0.5}}),
        ("temperature.policy", {"temperature": {"policy": "wsld"}}),
    ],
)
def test_what_asks_for_labels_of_frames_is_refused_before_anything_is_trained(field, changes, tmp_path):
    recipe = parse_recipe(ctc_recipe(tmp_path) | changes, folder=tmp_path)
    with pytest.raises(RecipeError, match=f"'{field}' asks for labels of rows, and those of speech-recognition have"):
        pipeline.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run/teacher").exists()


def test_a_search_says_nothing_of_calibration_where_frames_have_no_labels(tmp_path):
    raw = ctc_recipe(tmp_path) | {"tune": {"search": {"temperature": [1, 2]}, "budget": "2 trials"}}
    raw["data"]["concatenate"]["examples"]["validation"] = 60
    raw["teacher"]["train"]["epochs"] = raw["train"]["epochs"] = 1
    suggestion = pipeline.tune(parse_recipe(raw, folder=tmp_path), tmp_path / "run").suggestion
    assert suggestion.calibration is None
    assert not any("probabilities fit the labels" in reason for reason in suggestion.reasons)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"concatenate": {"least": 3, "most": 2, "examples": 4}},
            "'data.concatenate' has least 3 above most 2: give a",
        ),
        ({"concatenate": {"examples": {"train": 4}}}, "'data.concatenate' has examples for some splits only: give a"),
        ({"concatenate": {"examples": None}}, "'data.concatenate' has examples for some splits only: give a number"),
        ({"sampling_rate": 500}, "'data.sampling_rate' is 500: give samples a second, from 1000 to 384000"),
        ({"frames": {"stride": 0}}, "'data.frames.stride' is 0: give a whole number, 1 or above"),
    ],
)
def test_a_section_that_says_nothing_of_sound_is_refused(changes, sentence, tmp_path):
    raw = ctc_recipe(tmp_path)
    with pytest.raises(RecipeError, match=sentence):
        parse_recipe(raw | {"data": raw["data"] | changes}, folder=tmp_path)


def test_transcripts_of_a_table_are_read(tmp_path):
    for split in ("train", "dev", "test"):
        rows = [{"sound": tone("low", i).tolist(), "said": ["a b", "b"][i % 2]} for i in range(2)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    where = {name: str(tmp_path / file) for name, file in FILES.items() if name != "sampling_rate"}
    made = make_task("speech-recognition", DataRecipe(**where, sampling_rate=RATE, audio="sound", text="said"))
    splits = made.load()
    assert splits.labels == NAMES
    assert splits.train["label"][:] == [[2, 1, 3], [3]]
    assert made.references(made.encode(splits.test, None))[0].text == "a b"


def test_a_recording_without_a_frame_is_refused():
    made = task(**WAVES)
    with pytest.raises(DataError, match="audio of example 'input 0' is shorter than one frame: leave it out"):
        made.encode_inputs([np.zeros(24, np.float32)], None)
    assert len(made.encode_inputs([np.zeros(25, np.float32)], None)[0]["labels"]) == 1
    assert list(TONES) == ["low", "mid", "high"]
