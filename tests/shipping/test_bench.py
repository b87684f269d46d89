"""What models cost, measured: percentiles, rates, and the page."""

import json
import re
import time

import pytest

from setpoint.errors import ModelError
from setpoint.shipping import bench as benching
from setpoint.shipping.bench import Cost, bench, find_inputs, latencies, measure, throughput
from setpoint.shipping.bench_page import cost_figure, cost_rows, print_costs, verdict, write_page
from setpoint.shipping.manifest import read_manifest
from setpoint.shipping.run_models import validation_inputs


def test_latencies_are_percentiles_of_single_calls(monkeypatch):
    sizes = []

    def ask(batch, size):
        sizes.append((len(batch), size))
        time.sleep(0.02 if batch[0] == 0 else 0.002)

    monkeypatch.setattr(benching, "CALLS", 60)
    p50, p95 = latencies(ask, list(range(10)))  # every tenth is slow
    assert 2 <= p50 < 10
    assert 20 <= p95 < 40
    assert set(sizes) == {(1, 1)}
    assert len(sizes) == 65


def test_throughput_counts_inputs(monkeypatch):
    monkeypatch.setattr(benching, "SECONDS", 0.2)
    asked = []

    def ask(batch, size):
        asked.append(batch)
        time.sleep(0.01)

    rate = throughput(ask, [0, 1, 2], 4)
    assert 150 < rate <= 400
    assert asked[:3] == [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2]]


@pytest.mark.parametrize("what", ["export", "teacher", "student"])
def test_a_model_is_measured(what, ner_run, ner_int8, monkeypatch):
    monkeypatch.setattr(benching, "SECONDS", 0.05)
    monkeypatch.setattr(benching, "CALLS", 20)
    folder = ner_int8 if what == "export" else ner_run
    found = measure(folder, what, validation_inputs(ner_run, 5), 4, None)
    manifest = read_manifest(ner_int8)
    weights = folder / {"export": "model.onnx", "teacher": "teacher/model.safetensors"}.get(
        what, "student/seed-0/model.safetensors"
    )
    assert found.bytes == weights.stat().st_size
    assert 0 < found.p50_ms <= found.p95_ms
    assert found.per_second > 0
    assert found.metric == "f1"
    if what == "export":
        assert (found.runtime, found.dtype, found.score) == ("onnx", "int8", manifest.validation.value)
    elif what == "student":
        assert (found.runtime, found.dtype, found.score) == ("pytorch", "float32", manifest.validation.pytorch)


def test_inputs_are_those_of_the_validation_split_or_a_file(ner_run, ner_onnx, image_run, text_run, tmp_path):
    assert len(validation_inputs(ner_run, 100)) == 12
    assert [list(row) for row in validation_inputs(ner_run, 5)] == [["tokens"]] * 4
    assert list(validation_inputs(text_run, 1)[0]) == ["first", "second"]
    assert len(validation_inputs(image_run, 1)[0]["image"]) == 8
    (tmp_path / "in.txt").write_text("anna lives\nbob\n")
    assert find_inputs([ner_onnx], tmp_path / "in.txt") == ["anna lives", "bob"]
    with pytest.raises(ModelError, match="no run is given to take inputs from: give a file of inputs with --data"):
        find_inputs([ner_onnx], None)
    (tmp_path / "in.txt").write_text("\n")
    with pytest.raises(ModelError, match="there are no inputs in "):
        find_inputs([ner_onnx], tmp_path / "in.txt")
    with pytest.raises(
        ModelError, match=r"has neither setpoint.json nor recipe.json: give an exported folder, or a run"
    ):
        bench([ner_run, tmp_path])


COSTS = [
    Cost("runs/x teacher", "pytorch", "float32", 400_000_000, 40.0, 50.0, 30.0, 32, 900_000_000, "f1", 0.95),
    Cost("out/<int8>", "onnx", "int8", 5_000_000, 1.0, 2.0, 900.0, 32, 60_000_000, "f1", 0.94),
]


def test_the_table_compares_with_the_first(capsys):
    print_costs(COSTS)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    shown = " ".join(lines)
    assert "40.00 50.00 1.0 30 900 MB" in shown
    assert [list(row.values()) for row in cost_rows(COSTS)] == [
        ["runs/x teacher", "pytorch", "400 MB", "40.00", "50.00", "1.0", "30", "900 MB", "0.9500"],
        ["out/<int8>", "onnx int8", "5 MB", "1.00", "2.00", "40.0", "900", "60 MB", "0.9400"],
    ]


def test_the_page_says_what_the_fastest_saves_and_has_a_point_for_each_model(tmp_path):
    figure = cost_figure(COSTS)
    assert [(list(trace.x), list(trace.y)) for trace in figure.data] == [([40.0], [0.95]), ([1.0], [0.94])]
    assert [list(trace.error_x.array) for trace in figure.data] == [[10.0], [1.0]]
    assert verdict(COSTS) == (
        "<int8> (onnx int8) answers in 1.00 ms, 40.0 times as fast as x teacher (pytorch); its file has 5 MB against "
        "400 MB, and its f1 of 0.9400 is 1.00 points lower."
    )
    assert verdict(COSTS[1:]) == "<int8> (onnx int8) is the fastest: 1.00 ms for one input."
    write_page(tmp_path / "bench.html", COSTS)
    page = (tmp_path / "bench.html").read_text()
    assert not re.search(r"<script[^>]+src=", page)
    assert "<int8>" not in page  # the name of a folder is anybody's text
    assert "40.0 times as fast" in page


@pytest.mark.slow
def test_each_model_is_measured_in_a_process_of_its_own(ner_onnx, tmp_path):
    (tmp_path / "in.txt").write_text("anna lives\nbob\n")
    (found,) = bench([ner_onnx], tmp_path / "in.txt", batch_size=4, threads=1)
    assert (found.model, found.runtime, found.batch_size) == (str(ner_onnx), "onnx", 4)
    assert found.memory_bytes > 1_000_000
    assert json.loads(json.dumps(found.as_json()))["metric"] == "f1"
