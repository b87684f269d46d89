"""The commands: what they print, and how they fail."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from setpoint.cli import app
from setpoint.shipping.manifest import read_manifest
from setpoint.shipping.shipped import Shipped


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr("setpoint.cli_shipping.quiet", lambda: None)  # it is for good, and other tests come after
    return lambda *words: CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


def test_export_says_what_it_made(run, ner_run, ner_onnx, tmp_path, monkeypatch):
    copy = lambda *given: shutil.copy(ner_onnx / "model.onnx", given[3])  # noqa: E731
    monkeypatch.setattr("setpoint.shipping.export.write_onnx", copy)
    shown = run("export", ner_run, "--format", "onnx", "--quantize", "int8", "--out", tmp_path / "a", "--seed", 0)
    words = " ".join(shown.stdout.split())
    found = read_manifest(tmp_path / "a")
    assert words.startswith("student seed 0, as asked for model model.onnx, int8, ")
    assert f"f1 {found.validation.value:.4f} on 12 validation examples; PyTorch {found.validation.pytorch:.4f}" in words
    assert f"max |Δ logit| {found.parity.largest:.2g} of logits up to" in words
    assert f"calibrated at T = {found.temperature:.3g}" in words
    assert words.endswith(f"Export: {tmp_path / 'a'}")
    shown = run("export", ner_run, "--format", "safetensors", "--json", "--out", tmp_path / "b")
    assert json.loads(shown.stdout) == json.loads((tmp_path / "b/setpoint.json").read_text())


def test_predict_writes_answers(run, ner_onnx, tmp_path):
    (tmp_path / "in.txt").write_text("anna lives\nbob\n")
    expected = Shipped.open(ner_onnx).predict(["anna lives", "bob"])
    shown = run("predict", ner_onnx, tmp_path / "in.txt")
    assert [json.loads(line) for line in shown.stdout.splitlines()] == expected
    run("predict", ner_onnx, tmp_path / "in.txt", "--out", tmp_path / "out.jsonl", "--batch-size", 1)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_serve_hands_its_limits_over(run, ner_onnx, tmp_path, monkeypatch):
    from setpoint.shipping.limits import Limits

    seen = []
    monkeypatch.setattr("setpoint.shipping.serve.serve", lambda *given: seen.append(given))
    monkeypatch.delenv("SETPOINT_TOKEN", raising=False)
    run("serve", ner_onnx)
    assert seen.pop() == (ner_onnx, "127.0.0.1", 8000, None, Limits(), None)
    (tmp_path / "token").write_text("abc")
    options = (
        "--host ::1 --port 9 --max-batch 2 --max-delay-ms 7 --max-body 3 --max-inputs 4 --max-characters 5 --threads 6"
    )
    run("serve", ner_onnx, *options.split(), "--token-file", tmp_path / "token")
    limits = Limits(body=3, inputs=4, characters=5, batch=2, delay=0.007)
    assert seen.pop() == (ner_onnx, "::1", 9, "abc", limits, 6)


def test_bench_prints_a_table_or_json(run, ner_onnx, tmp_path, monkeypatch):
    from setpoint.shipping.bench import Cost

    costs = [Cost("out/int8", "onnx", "int8", 5, 1.0, 2.0, 900.0, 32, 60, "f1", 0.94)]

    monkeypatch.setattr("setpoint.shipping.bench.bench", lambda *_: costs)
    assert json.loads(run("bench", ner_onnx, "--json").stdout) == [cost.as_json() for cost in costs]
    shown = run("bench", ner_onnx, "--plot", tmp_path / "bench.html")
    assert "out/int8" in shown.stdout
    assert (tmp_path / "bench.html").exists()
