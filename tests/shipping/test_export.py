"""What is exported is what was trained: against transformers and ONNX Runtime by hand."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModelForImageClassification, AutoModelForTokenClassification, AutoTokenizer, pipeline

from setpoint import calibrate_temperature
from setpoint.errors import ModelError, RunError, SetpointError
from setpoint.files import read_json
from setpoint.shipping import export as exporting
from setpoint.shipping.export import choose_seed, export, open_run, open_student, push
from setpoint.shipping.manifest import read_manifest
from setpoint.shipping.parity import compare
from setpoint.shipping.shipped import Shipped
from setpoint.targets.teacher import FrozenTeacher

SENTENCES = [["anna", "lives", "in", "rome"], ["bob"], ["carla", "lives"], ["paris"] * 9]


def by_hand(run, sentences=SENTENCES):
    """The logits of each word of sentences, by transformers alone, one sentence after the other."""
    folder = run / "student/seed-0"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    found = []
    for words in sentences:
        pieces = tokenizer([words], is_split_into_words=True, return_tensors="pt")
        ids = pieces.word_ids(0)
        first = [ids.index(i) for i in range(len(words))]
        with torch.no_grad():
            found.append(model(**pieces).logits[0, first])
    return found, model.config.id2label


def test_onnx_gives_the_logits_of_transformers_for_any_batch_and_length(ner_run, ner_onnx):
    expected, _ = by_hand(ner_run)
    session = onnxruntime.InferenceSession(str(ner_onnx / "model.onnx"))
    tokenizer = AutoTokenizer.from_pretrained(ner_onnx)
    for size in (1, 2, 4):
        for start in range(0, len(SENTENCES), size):
            words = SENTENCES[start : start + size]
            pieces = tokenizer(words, is_split_into_words=True, return_tensors="np", padding=True)
            (logits,) = session.run(["logits"], {one.name: pieces[one.name] for one in session.get_inputs()})
            for i in range(len(words)):
                ids = pieces.word_ids(i)
                rows = logits[i, [ids.index(k) for k in range(len(words[i]))]]
                assert np.abs(rows - expected[start + i].numpy()).max() < 1e-5


def test_a_pipeline_of_transformers_takes_the_safetensors_folder_as_it_stands(ner_run, ner_safetensors):
    expected, names = by_hand(ner_run)
    pipe = pipeline("token-classification", str(ner_safetensors), ignore_labels=[])
    for words, logits in zip(SENTENCES, expected, strict=True):
        found = pipe(" ".join(words))
        assert [entry["entity"] for entry in found] == [names[i] for i in logits.argmax(-1).tolist()]
        assert [entry["score"] for entry in found] == pytest.approx(logits.softmax(-1).amax(-1).tolist(), abs=1e-5)
    # The same by Setpoint, but for the temperature.
    shipped = Shipped.open(ner_safetensors)
    t = shipped.manifest.temperature
    for answer, logits in zip(shipped.predict(SENTENCES), expected, strict=True):
        assert [word["label"] for word in answer["words"]] == [names[i] for i in logits.argmax(-1).tolist()]
        shares = (logits / t).softmax(-1).amax(-1).tolist()
        assert [word["probability"] for word in answer["words"]] == pytest.approx(shares, abs=2e-6)


def test_a_pipeline_takes_pictures_in_colour(image_run, tmp_path):
    """The digits are grey and pipeline() makes pictures red, green and blue: a student with one channel cannot do."""
    from PIL import Image

    from setpoint.vision import SmallConvNetConfig, SmallConvNetForImageClassification

    place, _, _ = export(image_run, "safetensors", out=tmp_path / "student")
    model = AutoModelForImageClassification.from_pretrained(place)
    assert model.config.id2label == dict(enumerate("0123456789"))
    colour = SmallConvNetForImageClassification(SmallConvNetConfig(num_channels=3, widths=(4,), num_labels=3)).eval()
    colour.save_pretrained(tmp_path / "colour")
    shutil.copy(place / "preprocessor_config.json", tmp_path / "colour")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = colour(pixel_values=torch.tensor(pixels / 255.0, dtype=torch.float32).permute(2, 0, 1)[None]).logits
    found = pipeline("image-classification", str(tmp_path / "colour"))(Image.fromarray(pixels))
    scores = {entry["label"]: entry["score"] for entry in found}
    assert [scores[f"LABEL_{i}"] for i in range(3)] == pytest.approx(expected.softmax(-1)[0].tolist(), abs=1e-5)


def test_the_manifest_says_what_was_measured(ner_run, ner_onnx):
    found = read_manifest(ner_onnx)
    student = open_student(open_run(ner_run), 0)
    splits = student.job.splits
    logits, names = by_hand(ner_run, splits.validation["tokens"])
    z = torch.cat(logits)
    y = torch.tensor([i for row in splits.validation["label"] for i in row])
    assert found.temperature == pytest.approx(calibrate_temperature(z, y), rel=1e-3)
    assert found.temperature != 1
    tops = [row.argmax(-1).numpy() for row in logits]
    score = student.job.task.scores(
        [np.eye(3)[top] for top in tops], [np.array(r) for r in splits.validation["label"]], splits.labels
    )
    assert found.validation.pytorch == found.validation.value == pytest.approx(score["f1"](slice(None)))
    assert (found.validation.metric, found.validation.examples) == ("f1", 12)
    assert (found.name, found.seed, found.task, found.max_length) == ("tiny", 0, "token-classification", 16)
    assert found.labels == splits.labels == tuple(names.values())
    assert found.columns == {"tokens": "tokens"}
    assert found.dtype == "float32"
    assert found.parity.agreement == 1
    assert found.parity.rows == len(y)
    assert 0 <= found.parity.largest <= 1e-4 * found.parity.scale
    for name, record in found.files.items():
        content = (ner_onnx / name).read_bytes()
        assert (record.bytes, record.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert {file.name for file in ner_onnx.iterdir()} == {*found.files, "setpoint.json"}


def test_int8_is_smaller_and_says_what_it_costs(ner_onnx, ner_int8):
    whole, small = read_manifest(ner_onnx), read_manifest(ner_int8)
    assert small.dtype == "int8"
    import onnx

    kinds = {one.data_type for one in onnx.load(ner_int8 / "model.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    assert small.parity.largest > whole.parity.largest
    assert small.parity.agreement > 0.9
    assert small.validation.pytorch == whole.validation.pytorch
    assert abs(small.validation.value - small.validation.pytorch) < 0.1


def test_a_logit_that_is_not_pytorchs_is_refused_and_leaves_nothing(ner_run, ner_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "write_onnx", lambda *given: shutil.copy(ner_onnx / "model.onnx", given[3]))
    for quantize in (None, "int8"):
        with pytest.raises(
            ModelError, match=r"what was written differs from PyTorch by .* in logits of up to .*nothing is"
        ):
            export(ner_run, "onnx", quantize=quantize, out=tmp_path / "student", seed=1)  # the file is of seed 0
        assert list(tmp_path.iterdir()) == []


def test_parity_finds_one_row_that_differs(ner_run):
    student = open_student(open_run(ner_run), 0)
    collate = student.job.task.collate(student.processor)

    class Off(FrozenTeacher):
        def __call__(self, batch):
            logits = super().__call__(batch)
            if "validation-7" in batch["example_id"]:
                logits[-1] = wrong
            return logits

    wrong = torch.tensor([9.0, 0.0, 0.0])
    found = compare(student.source, Off(student.source.model, student.source.labels), student.examples, collate)
    assert found.largest > 1
    wrong = torch.full((3,), torch.nan)
    found = compare(student.source, Off(student.source.model, student.source.labels), student.examples, collate)
    assert found.largest == torch.inf


def test_the_best_seed_is_taken_where_it_is_known(ner_run, tmp_path):
    job = open_student(open_run(ner_run)).job
    assert choose_seed(job, None) == (0, "the first: the run has not measured them on the validation split")
    assert choose_seed(job, 1) == (1, "as asked for")
    with pytest.raises(RunError, match=r"has no student of seed 5: give one of 0, 1"):
        choose_seed(job, 5)
    one = replace(job, recipe=job.recipe.model_copy(update={"seeds": (1,)}))
    assert choose_seed(one, None) == (1, "the only one")
    for seed, scores in ((0, [0.7, 0.4]), (1, [0.5, 0.75])):
        mark = {"made_from": 0, "seconds": 0, "result": {"log": [{"eval_f1": score} for score in scores]}}
        (tmp_path / "stages").mkdir(exist_ok=True)
        (tmp_path / f"stages/student-seed-{seed}.json").write_text(json.dumps(mark))
    known = replace(job, folder=type(job.folder)(tmp_path))
    assert choose_seed(known, None) == (1, "the best on the validation split, f1 0.7500")


def test_an_earlier_export_is_replaced_and_nothing_else(ner_run, ner_onnx, tmp_path):
    place = tmp_path / "student"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"holds something that is no export: choose another with --out"):
        export(ner_run, "safetensors", out=place)
    shutil.rmtree(place)
    shutil.copytree(ner_onnx, place)
    export(ner_run, "safetensors", out=place, seed=1)
    assert read_manifest(place).model == "model.safetensors"
    assert read_manifest(place).seed == 1
    assert not (place / "model.onnx").exists()
    assert list(tmp_path.iterdir()) == [place]


def test_what_cannot_be_exported_is_one_sentence(ner_run, tmp_path, monkeypatch):
    with pytest.raises(RunError, match=r"has no recipe.json: give the folder of a run that is finished"):
        export(tmp_path, "onnx")
    with pytest.raises(ModelError, match=r"--quantize int8 is given for safetensors: use it with --format onnx"):
        export(ner_run, "safetensors", quantize="int8")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SetpointError, match=r"the Python package 'onnx' is missing: pip install 'setpoint\[ship\]'"):
        export(ner_run, "onnx")


def test_an_upload_is_the_whole_folder(ner_onnx, monkeypatch):
    calls = []

    class Api:
        def create_repo(self, *given, **named):
            calls.append((given, named))

        def upload_folder(self, **named):
            calls.append(named)
            return "https://hub/me/student"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert push(ner_onnx, "me/student") == "https://hub/me/student"
    assert calls == [(("me/student",), {"exist_ok": True}), {"folder_path": str(ner_onnx), "repo_id": "me/student"}]
    monkeypatch.setattr(Api, "create_repo", lambda *_, **__: (_ for _ in ()).throw(OSError("no\nway")))
    with pytest.raises(ModelError, match=r"the Hub does not take 'me/student' \(no way\): log in"):
        push(ner_onnx, "me/student")


def test_images_and_pairs_are_exported_too(text_onnx, image_onnx):
    assert read_manifest(text_onnx).columns == {"text": "first", "text_pair": "second"}
    assert "token_type_ids" in read_manifest(text_onnx).inputs
    assert read_manifest(image_onnx).image_shape == (1, 8, 8)
    assert read_json(text_onnx / "tokenizer_config.json")["model_max_length"] == 24
