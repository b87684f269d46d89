"""Recordings as what models read."""

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.recipe_audio import FramesRecipe, SoundAugment, SoundRecipe
from setpoint.tasks.sound import at_rate, check_augment, features_of, pad_sounds, read_sound, varied
from sound import RATE, tone, wav


def noise(length, seed=0):
    return np.random.default_rng(seed).normal(size=length).astype(np.float32)


@pytest.mark.parametrize(("rate", "length"), [(8000, 8000), (8000, 333), (16000, 12345), (22050, 4410), (8000, 1)])
def test_spectrograms_are_those_of_transformers(rate, length):
    samples, frame = noise(length), round(0.025 * rate)
    points = {8000: 512, 16000: 1024, 22050: 2048}[rate]
    expected = spectrogram(
        np.pad(samples.astype(np.float64), (0, 1)) if frame % 2 else samples,  # transformers pads odd windows evenly
        window_function(frame, "hann"), frame_length=frame, hop_length=rate // 100, fft_length=points, power=2.0,
        pad_mode="constant", log_mel="log",
        mel_filters=mel_filter_bank(points // 2 + 1, 40, 20.0, rate / 2, rate, mel_scale="htk"),
    ).T.astype(np.float64)  # fmt: skip
    got = features_of(samples, SoundRecipe(sampling_rate=rate)).numpy()
    assert got.shape == (1 + length // (rate // 100), 40)
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("features", ["log_mel", "waveform"])
def test_loudness_and_an_offset_of_samples_say_little(features):
    data, samples = SoundRecipe(features=features, sampling_rate=8000), noise(4000) / 10
    loud = features_of(samples * 5, data)
    torch.testing.assert_close(features_of(samples, data), loud, atol=1e-3, rtol=1e-3)
    assert abs(float(loud.mean())) < 1e-5
    assert float(loud.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert loud.dtype == torch.float32


@pytest.mark.parametrize("features", ["log_mel", "waveform"])
def test_silence_has_features_that_are_finite(features):
    assert torch.isfinite(features_of(np.zeros(500, np.float32), SoundRecipe(features=features))).all()


@pytest.mark.parametrize(("features", "whole"), [("log_mel", 51), ("waveform", 4000)])
def test_seconds_cut_recordings_or_fill_them_with_zeros(features, whole):
    data = SoundRecipe(features=features, sampling_rate=8000, seconds=0.5)
    long, short = noise(8000), noise(2000)
    assert torch.equal(features_of(long, data), features_of(long[:4000], data))
    got, plain = features_of(short, data), features_of(short, data.model_copy(update={"seconds": None}))
    assert len(got) == len(features_of(long, data)) == whole
    assert torch.equal(got[: len(plain)], plain)
    assert not got[len(plain) :].any()


def test_another_rate_is_brought_to_the_recipes():
    samples = noise(3000)
    np.testing.assert_allclose(at_rate(samples, 8000, 6000, "x"), resample_poly(samples, 3, 4), atol=1e-5)
    assert at_rate(samples, None, 6000, "x") is at_rate(samples, 6000, 6000, "x") is samples
    time = np.arange(8000) / 8000
    slow = at_rate(np.sin(2 * np.pi * 100 * time).astype(np.float32), 8000, 2000, "x")
    np.testing.assert_allclose(slow[100:-100], np.sin(2 * np.pi * 100 * time[::4])[100:-100], atol=1e-2)


@pytest.mark.parametrize("rate", [1, 999, 2**31])
def test_a_rate_that_no_recording_has_is_refused(rate):
    with pytest.raises(DataError, match=f"audio of example 'x' says {rate} samples a second: give 1000 to 384000"):
        at_rate(noise(10), rate, 16000, "x")


def test_more_bands_than_can_be_told_apart_are_refused():
    with pytest.raises(DataError, match="data.mel_bins is 128, more than 25 ms at 2000 samples a second tell apart"):
        features_of(noise(100), SoundRecipe(sampling_rate=2000, mel_bins=128))


def test_inputs_are_files_numbers_or_rows():
    columns, data, samples = {"audio": "sound"}, SoundRecipe(sampling_rate=RATE), tone("low", 0)
    expected = read_sound(samples.tolist(), columns, data, "input 0")
    np.testing.assert_array_equal(expected, samples)
    np.testing.assert_array_equal(read_sound({"sound": samples}, columns, data, "input 0"), samples)
    np.testing.assert_allclose(read_sound({"bytes": wav(samples)}, columns, data, "input 0"), samples, atol=1e-4)
    assert len(read_sound({"bytes": wav(samples, 2 * RATE)}, columns, data, "input 0")) == -(-len(samples) // 2)
    for value, sentence in [("x.wav", "is 'x.wav'"), ([], r"is \[\]"), ([0, 2], "has values from 0 to 2"),
                            ({"bytes": b"RIFF"}, "cannot be read")]:  # fmt: skip
        with pytest.raises(DataError, match=sentence):
            read_sound(value, columns, data, "input 0")
    with pytest.raises(DataError, match="input 0 has no 'sound', only 'audio': give sound"):
        read_sound({"audio": [0.0]}, columns, data, "input 0")


def test_a_batch_is_padded_with_zeros_and_says_where():
    examples = [{"input_values": torch.ones(n, 2)} for n in (3, 1)]
    got = pad_sounds(examples, True)
    assert got["input_values"][..., 0].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert got["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert "attention_mask" not in pad_sounds(examples[:1], False)


def views(augment, values, data=None, count=300):
    generator = torch.Generator().manual_seed(0)
    return [varied(values, augment, data or SoundRecipe(), generator) for _ in range(count)]


def test_a_shift_moves_by_each_number_of_columns_and_zeros_come_in():
    values = torch.arange(1.0, 6.0)[:, None].expand(5, 2)
    wanted = {by: torch.zeros(5, 2) for by in (-2, -1, 0, 1, 2)}
    for by, moved in wanted.items():
        for place in range(5):
            if 0 <= place + by < 5:
                moved[place + by] = values[place]
    seen = set()
    for view in views(SoundAugment(kind="sound", shift=0.02), values):
        (by,) = [by for by, moved in wanted.items() if torch.equal(view, moved)]
        seen.add(by)
    assert seen == set(wanted)


def test_masks_are_bands_and_columns_of_each_width():
    values, widths = torch.ones(9, 7), set()
    for view in views(SoundAugment(kind="sound", bands=3, columns=2), values):
        columns, bands = (view == 0).all(1), (view == 0).all(0)
        assert torch.equal(view == 0, columns[:, None] | bands[None])  # nothing else
        for line in (columns, bands):
            where = line.nonzero().flatten().tolist()
            assert where == list(range(where[0], where[-1] + 1)) if where else True
        widths.add((int(columns.sum()), int(bands.sum())))
    assert widths == {(c, b) for c in range(3) for b in range(4)}
    assert values.all()  # the recording itself stays as it is


def test_samples_move_too_and_have_no_bands():
    data = SoundRecipe(features="waveform", sampling_rate=1000)
    moved = {int((view == 0).sum()) for view in views(SoundAugment(kind="sound", shift=0.003), torch.ones(20), data)}
    assert moved == {0, 1, 2, 3}
    made = DataRecipe(dataset="d", features="waveform", augment=[{"kind": "sound", "bands": 2}])
    with pytest.raises(DataError, match="data.augment masks a spectrogram, and data.features is waveform: give shift"):
        check_augment(made)


@pytest.mark.parametrize(
    ("kernels", "strides"),
    [((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)), ((10, 4), (5, 4)), ((3,), (1,)), ((5, 2, 3), (3, 3, 2))],
)
def test_convolutions_one_after_another_have_the_frames_of_one(kernels, strides):
    window, stride = 1, 1
    for kernel, step in zip(kernels, strides, strict=True):
        window, stride = window + (kernel - 1) * stride, stride * step
    frames = FramesRecipe(window=window, stride=stride)
    for length in range(1, 3 * window + 2 * stride):
        count = length
        for kernel, step in zip(kernels, strides, strict=True):
            count = max(0, (count - kernel) // step + 1) if count >= kernel else 0
        assert frames.count(length) == count
    assert SoundRecipe(features="waveform").model_frames == FramesRecipe(window=400, stride=320)
