"""Samples of .wav files, against what was written, and of arrays."""

import io
import struct
from contextlib import suppress

import numpy as np
import pytest
from datasets import Audio, Dataset
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile

from reading import lines, message, read, write
from setpoint.errors import DataError
from setpoint.tasks.audio import read_wav, recordings, samples_of

RATE = 8000


def wav(samples, rate=RATE):
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, np.asarray(samples))
    return buffer.getvalue()


def riff(data, bits, channels=1, kind=1):
    """A .wav file, byte by byte."""
    block = channels * bits // 8
    header = struct.pack("<HHIIHH", kind, channels, RATE, RATE * block, block, bits)
    chunks = b"fmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize(
    ("content", "samples"),
    [
        (riff(bytes([0, 64, 128, 255]), 8), [-1, -0.5, 0, 127 / 128]),
        (riff(struct.pack("<4h", -32768, -1, 0, 16384), 16), [-1, -1 / 32768, 0, 0.5]),
        (riff(b"\0\0\x80\xff\xff\x7f\0\0\x40", 24), [-1, 1 - 2**-23, 0.5]),
        (riff(struct.pack("<3i", -(2**31), 2**30, 1), 32), [-1, 0.5, 2**-31]),
        (riff(struct.pack("<4f", -1, 0.25, 1.5, -7), 32, kind=3), [-1, 0.25, 1, -1]),
        (riff(struct.pack("<2d", -0.5, 0.125), 64, kind=3), [-0.5, 0.125]),
        (riff(struct.pack("<4h", 32767, -32767, 16384, 0), 16, channels=2), [0, 0.25]),
    ],
    ids=["8", "16", "24", "32", "float", "double", "stereo"],
)
def test_samples_are_fractions_of_the_loudest(content, samples):
    got, rate = read_wav(content, "a")
    assert (got.dtype, rate) == (np.float32, RATE)
    np.testing.assert_array_equal(got, np.array(samples, np.float32))


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=50), st.integers(1, 96000))
def test_16_bits_come_back_whole(numbers, rate):
    got, found = read_wav(wav(np.array(numbers, np.int16), rate), "a")
    assert found == rate
    assert (got.astype(np.float64) * 32768).tolist() == numbers


WHOLE = riff(struct.pack("<20h", *range(-10, 10)), 16)


@pytest.mark.parametrize(
    "content",
    [b"", b"RIFF", b"ID3\3 an mp3", WHOLE[:20], WHOLE[:44], WHOLE[:-2], WHOLE[:60], riff(b"", 16),
     riff(struct.pack("<f", float("nan")), 32, kind=3), riff(bytes(4), 16, channels=0), riff(bytes(4), 4, kind=17)],
)  # fmt: skip
def test_what_is_no_whole_recording_is_one_sentence(content):
    text = message(read_wav, content, "train-7")
    assert text.startswith("audio of example 'train-7' cannot be read (")
    assert text.endswith("): give another .wav file")


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4), st.integers(0, len(WHOLE)))
def test_a_damaged_recording_raises_nothing_else(changes, end):
    content = bytearray(WHOLE)
    for place, value in changes:
        content[place] = value
    with suppress(DataError):
        samples, rate = read_wav(bytes(content[:end]), "a")
        assert samples.ndim == 1
        assert np.abs(samples).max() <= 1
        assert rate >= 1


def test_arrays_are_samples_too():
    for value in ([0.5, -1], np.array([0.5, -1.0]), np.array([2**30, -(2**31)], np.int32)):
        samples, rate = samples_of(value, "a")
        assert (samples.tolist(), samples.dtype, rate) == ([0.5, -1], np.float32, None)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([0, 2], "has values from 0 to 2: give fractions from -1 to 1, or arrays of 16 or 32 bits"),
        ([], "is []: give a .wav file, or a list of numbers"),
        ([[0.5]], "is [[0.5]]: give a .wav file, or a list of numbers"),
        ("a.wav", "is 'a.wav': give a .wav file, or a list of numbers"),
        (None, "is null: give a .wav file, or a list of numbers"),
        ([0.5, float("inf")], "is [0.5, inf]: give a .wav file, or a list of numbers"),
    ],
)
def test_what_is_no_recording_is_refused(value, problem):
    assert message(samples_of, value, "a") == f"audio of example 'a' {problem}"


def test_recordings_of_a_column_keep_the_width_of_their_numbers(tmp_path):
    np.savez(tmp_path / "x.npz", audio=np.array([1, 16384, -32768], np.int16), offsets=[0, 2, 3])
    got = list(recordings(read(tmp_path / "x.npz", ("audio",))["train"], "audio"))
    assert [(samples.tolist(), rate) for samples, rate in got] == [([1 / 32768, 0.5], None), ([-1], None)]
    path = write(tmp_path / "x.jsonl", lines([{"audio": [0.5, -0.25]}, {"audio": [1, 0]}]))
    assert [s.tolist() for s, _ in recordings(read(path, ("audio",))["train"], "audio")] == [[0.5, -0.25], [1, 0]]


def test_recordings_of_paths_have_a_rate_and_are_read_when_they_are_wanted(tmp_path):
    write(tmp_path / "a.wav", wav(np.array([0, 16384], np.int16), 16000))
    write(tmp_path / "b.wav", b"no recording")
    got = read(write(tmp_path / "x.csv", "audio\na.wav\nb.wav\n"), ("audio",))["train"]
    found = recordings(got, "audio")
    samples, rate = next(found)
    assert (samples.tolist(), rate) == ([0, 0.5], 16000)
    assert message(next, found).startswith("audio of example 'train-1' cannot be read (")


def test_parquet_may_hold_recordings(tmp_path):
    cells = [{"bytes": wav(np.array([16384], np.int16)), "path": None}]
    made = Dataset.from_dict({"audio": cells}).cast_column("audio", Audio(decode=False))
    made.to_parquet(tmp_path / "x.parquet")
    assert [s.tolist() for s, _ in recordings(read(tmp_path / "x.parquet", ("audio",))["test"], "audio")] == [[0.5]]
