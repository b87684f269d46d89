"""An exported folder is opened whole, or refused in a sentence; its answers are those of the training's encoding."""

import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from setpoint.batching import alike
from setpoint.errors import DataError, ModelError
from setpoint.shipping.export import open_run, open_student
from setpoint.shipping.shipped import Shipped


@pytest.fixture
def folder(ner_onnx, tmp_path):
    return shutil.copytree(ner_onnx, tmp_path / "student")


def change(folder, **fields):
    content = json.loads((folder / "setpoint.json").read_text())
    (folder / "setpoint.json").write_text(json.dumps(content | fields))


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: flip(f / "model.onnx"), r"model.onnx' is damaged, its SHA-256 is another: export or copy it again"),
        (lambda f: flip(f / "tokenizer.json"), r"tokenizer.json' is damaged, its SHA-256 is another"),
        (lambda f: (f / "model.onnx").write_bytes(b"x"), r"model.onnx' has 1 bytes of [\d,]+: export or copy it again"),
        (lambda f: (f / "config.json").unlink(), r"config.json' is missing: export the run again"),
        (lambda f: (f / "setpoint.json").unlink(), r"has no setpoint.json: give a folder that setpoint export wrote"),
        (lambda f: (f / "setpoint.json").write_text("{"), r"setpoint.json' is damaged \(all of it: "),
        (lambda f: (f / "setpoint.json").write_text("[" * 100_000), r"setpoint.json' is damaged \(all of it: "),
        (lambda f: change(f, format=2), r"has format 2, which is newer than this Setpoint: upgrade setpoint"),
        (lambda f: change(f, task="poetry"), r"is of task 'poetry', which this Setpoint does not know"),
        (lambda f: change(f, temperature=0), r"damaged \(temperature: give a finite number above 0"),
        (lambda f: change(f, model="model.bin"), r"damaged \(model: "),
        (lambda f: change(f, files={}), r"damaged \(files: no model.onnx\)"),
        (
            lambda f: (f / "pytorch_model.bin").write_text(""),
            r"holds 'pytorch_model.bin', which is none of the export's",
        ),
    ],
)
def test_what_is_not_whole_is_refused_in_one_sentence(folder, damage, sentence):
    damage(folder)
    with pytest.raises(ModelError, match=sentence) as caught:
        Shipped.open(folder)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "a/b.json", "..", ".hidden.json", "x.bin", "x.py", "a\\b.json", ""]
)
def test_a_manifest_cannot_name_what_lies_elsewhere_or_holds_code(folder, name):
    files = json.loads((folder / "setpoint.json").read_text())["files"]
    change(folder, files=files | {name: {"bytes": 1, "sha256": "0" * 64}})
    with pytest.raises(ModelError, match=r"is damaged \(files.*: is no file of an exported folder\)"):
        Shipped.open(folder)


def test_a_card_may_lie_beside(folder):
    (folder / "README.md").write_text("card")
    assert Shipped.open(folder).predict([["anna"]])


def test_a_file_that_is_no_model_is_refused_though_its_digest_is_right(folder):
    import hashlib

    (folder / "model.onnx").write_bytes(b"rubbish")
    files = json.loads((folder / "setpoint.json").read_text())["files"]
    files["model.onnx"] = {"bytes": 7, "sha256": hashlib.sha256(b"rubbish").hexdigest()}
    change(folder, files=files)
    with pytest.raises(ModelError, match=r"model.onnx' cannot be loaded by ONNX Runtime"):
        Shipped.open(folder)


def test_answers_are_those_of_the_validation_split(ner_run, ner_onnx, ner_safetensors):
    student = open_student(open_run(ner_run), 0)
    words = list(student.job.splits.validation["tokens"])
    for folder in (ner_onnx, ner_safetensors):
        shipped = Shipped.open(folder, threads=1)
        answers = shipped.predict(words, batch_size=5)
        assert [[word["word"] for word in answer["words"]] for answer in answers] == words
        for answer, logits in zip(answers, student.outputs.logits, strict=True):
            shares = torch.softmax(torch.from_numpy(logits).double() / shipped.manifest.temperature, -1)
            assert [w["probability"] for w in answer["words"]] == pytest.approx(shares.amax(-1).tolist(), abs=3e-6)
            tops = [shipped.manifest.labels[i] for i in logits.argmax(-1)]
            assert [w["label"] for w in answer["words"]] == tops


def test_words_may_come_as_a_text_or_a_row_and_are_all_in_the_answer(ner_onnx):
    shipped = Shipped.open(ner_onnx)
    one, two, three, none = shipped.predict(
        [["anna", "lives"], "anna  lives", {"tokens": ["anna", "lives"], "x": 1}, []]
    )
    assert one == two == three
    assert none == {"words": []}
    assert shipped.predict([]) == []
    long = shipped.predict([["anna"] * 20])[0]["words"]
    assert [word["label"] is None for word in long] == [False] * 14 + [True] * 6  # 16 pieces, two of them special
    assert long[14] == {"word": "anna", "label": None, "probability": None}


def test_a_pair_of_texts_is_encoded_as_in_training(text_run, text_onnx):
    student = open_student(open_run(text_run))
    split = student.job.splits.validation
    shipped = Shipped.open(text_onnx)
    rows = [{"first": a, "second": b} for a, b in zip(split["text"], split["text_pair"], strict=True)]
    answers = shipped.predict(rows)
    assert answers == shipped.predict([[row["first"], row["second"]] for row in rows])
    for answer, logits in zip(answers, student.outputs.logits, strict=True):
        shares = torch.softmax(torch.from_numpy(logits[0]).double() / shipped.manifest.temperature, -1).tolist()
        assert list(answer["probabilities"]) == list(shipped.manifest.labels)
        assert list(answer["probabilities"].values()) == pytest.approx(shares, abs=3e-6)
        assert answer["label"] == shipped.manifest.labels[int(logits[0].argmax())]
        assert answer["probability"] == max(answer["probabilities"].values())


def test_an_image_is_the_same_as_lists_array_and_picture_whatever_comes_with_it(image_run, image_onnx):
    import io

    from PIL import Image

    shipped = Shipped.open(image_onnx)
    pixels = load_digits().images[:3]
    grey = np.round(pixels / 16 * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey[0]).save(file, "png")
    ways = [
        grey[0].tolist(), grey[0], Image.fromarray(grey[0]), {"image": grey[0]}, {"bytes": file.getvalue()},
        {"image": {"bytes": file.getvalue(), "path": None}}, (grey[0] / 255.0).tolist(),
    ]  # fmt: skip
    # Whole numbers are of 255 in a batch of fractions too.
    answers = shipped.predict(ways)
    assert all(answer == answers[0] for answer in answers)
    assert shipped.predict([grey[0]])[0]["probabilities"] == pytest.approx(answers[0]["probabilities"], abs=2e-6)
    student = open_student(open_run(image_run))
    batch = {"pixel_values": torch.tensor(grey[:1, None] / 255.0, dtype=torch.float32), "labels": torch.zeros(1).long()}
    shares = torch.softmax(student.source(batch)[0].double() / shipped.manifest.temperature, -1)
    assert list(answers[0]["probabilities"].values()) == pytest.approx(shares.tolist(), abs=3e-6)


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        ("ner", 5, "input 1 has 5 for its tokens: give a list of strings"),
        ("ner", ["a", None], r"input 1 has \['a', None\] for its tokens: give a list of strings"),
        ("ner", {"text": "x"}, "input 1 has no 'tokens', only 'text': give tokens"),
        ("ner", {}, "input 1 has no 'tokens', only nothing: give tokens"),
        ("ner", [chr(0xD800)], "for its tokens: give a list of strings"),
        ("text", "alone", "input 1 is 'alone': give first and second"),
        ("text", ["a", 1], "input 1 has 1 for its text_pair: give a string"),
        ("image", [[0, 300]], "image of example 'input 1' has values from 0 to 300: give whole numbers from 0 to 255"),
        ("image", [[0, 1]], "input 1 is an image of 1x1x2 where the model takes 1x8x8: give it that size"),
        ("image", {"bytes": b"GIF"}, r"image of example 'input 1' cannot be read \(cannot identify"),
        ("image", "x.png", "image of example 'input 1' is 'x.png': give a picture, or lists of numbers"),
    ],
)
def test_an_input_of_another_kind_is_refused_by_its_number(request, kind, value, sentence):
    shipped = Shipped.open(request.getfixturevalue(f"{kind}_onnx"))
    good = {"ner": ["a"], "text": ["a", "b"], "image": [[0] * 8] * 8}[kind]
    with pytest.raises(DataError, match=sentence):
        shipped.predict([good, value])


def test_batches_are_of_like_length_and_hold_all_once():
    lengths = [3, 60, 4, 3, 0, 58, 12, 3, 0]
    for most in (1, 2, 100):
        batches = alike(lengths, most)
        assert sorted(i for batch in batches for i in batch) == list(range(9))
        assert max(map(len, batches)) <= most
        for batch in batches:
            longest, real = max(lengths[i] for i in batch), sum(lengths[i] for i in batch)
            assert longest * len(batch) - real <= 0.25 * longest * len(batch)
    assert len(alike(lengths, 100)) == 4  # those of 0, of 3 and 4, of 12, of 58 and 60
    assert alike([], 5) == []


def test_logits_that_are_not_finite_are_no_answer(ner_onnx):
    shipped = Shipped.open(ner_onnx)
    with pytest.raises(ModelError, match="gives logits that are not finite"):
        shipped.probabilities([np.array([[np.nan, 0.0, 0.0]])])


def test_int8_answers_are_those_of_float32_but_for_a_few_hundredths(ner_run, ner_int8, ner_onnx):
    words = list(open_student(open_run(ner_run), 0).job.splits.validation["tokens"])
    small, whole = (Shipped.open(folder).predict(words) for folder in (ner_int8, ner_onnx))
    pairs = [(a, b) for x, y in zip(small, whole, strict=True) for a, b in zip(x["words"], y["words"], strict=True)]
    assert np.mean([a["label"] == b["label"] for a, b in pairs]) > 0.9
    assert max(abs(a["probability"] - b["probability"]) for a, b in pairs) < 0.1
    assert small != whole
