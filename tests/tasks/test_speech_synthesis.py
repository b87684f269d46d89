"""Speech as codes: frames against transformers' own, Griffin-Lim by its property, sequences by a loop, a whole run."""

import base64
import io
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.io import wavfile
from scipy.signal import stft
from transformers.audio_utils import spectrogram, window_function

from setpoint import pipeline
from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.recipe_file import parse_recipe
from setpoint.tasks.codec import FLOOR, Frames, griffin_lim, learn_codebook, nearest, wav
from setpoint.tasks.speech_synthesis import SpeechSynthesis

RATE = 4000


def tone(pitch, seconds, seed=0):
    t = np.arange(int(RATE * seconds)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.01, len(t))
    return (0.4 * np.sin(2 * np.pi * pitch * t) + noise).astype(np.float32)


def recordings(n):
    """A low tone or a high one, short or long, as the label and the speaker say."""
    rows = []
    for i in range(n):
        label, who = i % 2, (i // 2) % 2
        rows.append(
            {"audio": tone((300, 1200)[label], (0.15, 0.3)[who], i), "label": ("low", "high")[label], "who": who}
        )
    return rows


def save(folder, n=24, name="data"):
    rows = recordings(n)
    arrays = {"label": np.array([r["label"] for r in rows]), "who": np.array([r["who"] for r in rows])}
    offsets = np.cumsum([0, *(len(r["audio"]) for r in rows)])
    np.savez(folder / f"{name}.npz", audio=np.concatenate([r["audio"] for r in rows]), offsets=offsets, **arrays)


def data(folder, **changes):
    given = {"speaker": "who", "sampling_rate": RATE, "codes": 6} | changes
    return DataRecipe(train=str(folder / "data.npz"), test=str(folder / "data.npz"), **given)


# ---------------------------------------------------------------------------------------------------- the codec


def test_frames_are_those_of_another_program():
    frames, samples = Frames(RATE), tone(500, 0.3)
    length = 2 * frames.hop
    theirs = spectrogram(
        samples.astype(np.float64), window_function(length, "hann"), length, frames.hop, power=2.0, mel_floor=FLOOR,
        mel_filters=frames.filters.double().numpy(), log_mel="log",
    )  # fmt: skip
    assert frames.log_mel(samples) == pytest.approx(theirs.T, abs=1e-3)


def test_magnitudes_come_nearer_with_each_iteration_and_never_go_away():
    """Griffin & Lim's theorem, measured by SciPy's transform, not by the one that is iterated."""
    frames = Frames(RATE)
    samples = np.concatenate([tone(300, 0.2), tone(900, 0.2)]).astype(np.float64)
    length, window = 2 * frames.hop, torch.hann_window(2 * frames.hop).double().numpy()

    def magnitudes(signal):
        found = stft(signal, window=window, nperseg=length, noverlap=length - frames.hop, boundary="even")[2]
        return np.abs(found) * window.sum()

    wanted = frames.spectrum(torch.from_numpy(samples)).abs()
    count = wanted.shape[1]
    apart = []
    for iterations in (0, 1, 2, 5, 20, 60):
        heard = griffin_lim(wanted, frames, iterations).numpy()
        mine = frames.spectrum(torch.from_numpy(heard)).abs().numpy()
        assert np.abs(magnitudes(heard)[:, 2 : count - 3] - mine[:, 2 : count - 3]).max() < 1e-6
        apart.append(float(np.linalg.norm(mine - wanted.numpy())))
    assert all(after <= before * (1 + 1e-9) for before, after in pairwise(apart))
    assert apart[-1] < 0.25 * float(np.linalg.norm(wanted.numpy()))


def test_a_tone_is_heard_at_its_pitch_again():
    frames = Frames(RATE)
    heard = frames.heard(frames.log_mel(tone(600, 0.5)))
    peak = np.abs(np.fft.rfft(heard)).argmax() * RATE / len(heard)
    assert abs(peak - 600) < 60
    rate, samples = wavfile.read(io.BytesIO(base64.b64decode(wav(heard, RATE).removeprefix("data:audio/wav;base64,"))))
    assert (rate, samples.dtype, abs(int(np.abs(samples).max()) - 29490) < 2) == (RATE, np.int16, True)


def test_codes_are_the_nearest_by_a_loop():
    rng = np.random.default_rng(0)
    frames, codebook = rng.normal(size=(50, 7)), rng.normal(size=(9, 7))
    expected = [min(range(9), key=lambda k, f=frame: float(((f - codebook[k]) ** 2).sum())) for frame in frames]
    assert nearest(frames, codebook).tolist() == expected


def test_a_codebook_is_kept_and_that_of_other_frames_is_not_taken(tmp_path):
    frames = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    file = tmp_path / "codebook.safetensors"
    found = learn_codebook(frames, 5, file)
    kept = load_file(file)
    assert np.array_equal(kept["codebook"], found)
    stamp = file.stat().st_mtime_ns
    assert np.array_equal(learn_codebook(frames, 5, file), found)
    assert file.stat().st_mtime_ns == stamp
    other = learn_codebook(frames + 3, 5, file)
    assert other.mean() > found.mean() + 2
    assert len(learn_codebook(frames + 3, 6, file)) == 6


# ---------------------------------------------------------------------------------------------------- the sequences


def test_a_sequence_is_what_is_said_by_whom_and_how(tmp_path):
    save(tmp_path)
    found = SpeechSynthesis(data(tmp_path))
    splits = found.load()
    assert splits.labels == ("0", "1", "2", "3", "4", "5", "end")
    assert (found.vocabulary(None), found.conditions(splits)) == (7, 4)
    frames, kinds = Frames(RATE), ("high", "low")
    for example, row in zip(found.encode(splits.test, None), recordings(24), strict=True):
        codes = nearest(frames.log_mel(row["audio"]), found._codebook).tolist()
        begin = [7 + kinds.index(row["label"]), 9 + row["who"]]
        assert example["input_ids"].tolist() == [*begin, *codes]
        assert example["labels"].tolist() == [-100, *codes, 6]
    short = SpeechSynthesis(data(tmp_path, max_length=5))
    cut = short.encode(short.load().test, None)[0]
    assert (len(cut["input_ids"]), len(cut["labels"])) == (5, 5)
    assert cut["labels"].tolist()[1:4] == cut["input_ids"].tolist()[2:]


def test_recordings_of_another_rate_or_too_few_frames_are_refused(tmp_path):
    folder = tmp_path / "files"
    for kind in ("low", "high"):
        (folder / kind).mkdir(parents=True)
        for i in range(6):
            wavfile.write(folder / kind / f"{i}.wav", 8000, tone(300, 0.1))
    found = SpeechSynthesis(DataRecipe(train=str(folder), test=str(folder), sampling_rate=RATE))
    with pytest.raises(DataError, match="has 8000 samples in a second, not 4000"):
        found.load()
    save(tmp_path)
    with pytest.raises(DataError, match="frames for 4000 codes"):
        SpeechSynthesis(data(tmp_path, codes=4000)).load()


@pytest.mark.slow
def test_a_run_speaks(tmp_path):
    save(tmp_path, 60)
    sizes = {"model_type": "gpt2", "vocab_size": 11, "n_layer": 1, "n_head": 2, "n_positions": 32, "bos_token_id": 0,
             "eos_token_id": 0}  # fmt: skip
    raw = {
        "name": "tones", "task": "speech-synthesis",
        "data": json.loads(data(tmp_path).model_dump_json(exclude_unset=True)) | {"max_length": 32},
        "teacher": {
            "model": {"kind": "config", "config": sizes | {"n_embd": 32}},
            "train": {"epochs": 12, "batch_size": 8, "learning_rate": 1e-2},
        },
        "student": {"model": {"kind": "config", "config": sizes | {"n_embd": 16}}},
        "temperature": 1, "train": {"epochs": 6, "batch_size": 8, "learning_rate": 1e-2},
    }  # fmt: skip
    metrics = pipeline.run(parse_recipe(raw), tmp_path / "run")
    assert metrics["student_initial"]["metrics"]["perplexity"] > 5
    assert metrics["teacher"]["metrics"]["perplexity"] < 3
    page = (tmp_path / "run/report.html").read_text()
    assert page.count('<audio controls src="data:audio/wav;base64,') == 6
    assert "high, speaker 0" in page
    assert len(load_file(tmp_path / "run/codebook.safetensors")["codebook"]) == 6
    assert pipeline.run(parse_recipe(raw), tmp_path / "run") == metrics


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_recording_of_hardly_a_frame_can_be_heard(count):
    frames = Frames(8000)
    heard = frames.heard(np.zeros((count, 40), dtype=np.float32))
    assert heard.dtype == np.float32
    assert len(heard) == (2 * frames.hop if count == 3 else frames.hop)
    assert np.isfinite(heard).all()
    assert heard.any() == (count == 3)
