"""Made sound: words that are tones, one for each word, with a little noise; and a tiny wav2vec 2.0."""

import io
import json

import numpy as np
from scipy.io import wavfile

RATE = 2000
TONES = {"low": 150.0, "mid": 400.0, "high": 800.0}
WAV2VEC2 = {
    "model_type": "wav2vec2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "conv_dim": [16, 16], "conv_kernel": [10, 4], "conv_stride": [5, 4],
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "feat_extract_norm": "layer",
    "do_stable_layer_norm": True, "apply_spec_augment": False, "layerdrop": 0.0, "classifier_proj_size": 16,
}  # fmt: skip
"""Its frames: window 10 + 3 * 5 = 25, stride 20."""


def tone(word, number, seconds=0.2):
    """A recording of a word, the same for the same number; each is a little longer or shorter."""
    random = np.random.default_rng([number, len(word)])
    length = int(RATE * seconds * random.uniform(0.8, 1.2))
    time = np.arange(length) / RATE
    pure = np.sin(2 * np.pi * (TONES[word] * random.uniform(0.95, 1.05) * time + random.random()))
    pure *= np.hanning(length)  # where a word ends can be heard
    return (0.5 * pure + 0.05 * random.normal(size=length)).clip(-1, 1).astype(np.float32)


def wav(samples, rate=RATE):
    """The content of a .wav file."""
    file = io.BytesIO()
    wavfile.write(file, rate, (samples * 32767).astype(np.int16))
    return file.getvalue()


def write_words(folder, counts=(("train", 24), ("dev", 9), ("test", 9))):
    """Recordings of single words by two speakers, a JSONL of numbers a split."""
    start = 0
    for split, n in counts:
        rows = []
        for i in range(start, start + n):
            word = list(TONES)[i % 3]
            samples = [round(float(x), 4) for x in tone(word, i)]
            rows.append({"audio": samples, "label": word, "speaker": "ab"[i // 3 % 2]})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        start += n


FILES = {"train": "./train.jsonl", "validation": "./dev.jsonl", "test": "./test.jsonl", "sampling_rate": RATE}


def keyword_recipe(folder, teacher, student, **data):
    """A recipe of plain data, beside the words written into a folder."""
    write_words(folder)
    return {
        "name": "words", "task": "audio-classification", "data": {**FILES, "mel_bins": 16} | data,
        "teacher": {
            "model": {"kind": "config", "config": teacher},
            "train": {"epochs": 6, "batch_size": 8, "learning_rate": 1e-2},
        },
        "student": {"model": {"kind": "config", "config": student}},
        "temperature": 2, "targets": {"dtype": "float32"},
        "train": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2},
        "seeds": [0], "hard_baseline": False,
    }  # fmt: skip


NET = {"model_type": "setpoint-audionet", "num_mel_bins": 16, "widths": [8, 8]}
CTC = {"model_type": "setpoint-audioctc", "num_mel_bins": 16, "channels": 4, "hidden_size": 16, "num_hidden_layers": 1}


def ctc_recipe(folder, teacher=CTC, student=CTC, **data):
    """A recipe of utterances of one to three words."""
    made = {"least": 1, "most": 3, "examples": {"train": 24, "validation": 8, "test": 8}}
    raw = keyword_recipe(folder, teacher, student, speaker="speaker", concatenate=made, **data)
    return raw | {"name": "utterances", "task": "speech-recognition"}
