"""Files in, answers out: every format, in order, and a mistake by its line."""

import csv
import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from setpoint.errors import DataError
from setpoint.shipping.predict import predict_files, stream
from setpoint.shipping.reading import Given, read_inputs
from setpoint.shipping.shipped import Shipped

WORDS = [["anna", "lives"], ["bob"], ["carla", "lives", "in", "rome"], ["paris"]]


def answers(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def expected(ner_onnx):
    return Shipped.open(ner_onnx).predict(WORDS)


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "parquet", "txt"])
def test_every_format_of_text_gives_the_same_answers_in_order(kind, ner_onnx, expected, tmp_path):
    file = tmp_path / f"in.{kind}"
    rows = [{"id": f"n{i}", "tokens": words, "other": 1} for i, words in enumerate(WORDS)]
    lines = "\n".join(json.dumps(row) for row in rows[:2]) + "\n\n" + "\r\n".join(json.dumps(row) for row in rows[2:])
    if kind == "jsonl":
        file.write_text(lines)
    elif kind == "jsonl.gz":
        file.write_bytes(gzip.compress(lines.encode()))
    elif kind == "csv":
        file.write_text("id,tokens\n" + "\n".join(f'{row["id"]},"{" ".join(row["tokens"])}"' for row in rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("\n".join(" ".join(words) for words in WORDS))
        rows = [{} for _ in rows]
    assert predict_files(ner_onnx, [file], tmp_path / "out.jsonl", batch_size=2) == 4
    found = answers(tmp_path / "out.jsonl")
    assert found == [({"id": row["id"]} if row else {}) | answer for row, answer in zip(rows, expected, strict=True)]


def test_answers_are_tables_too(text_onnx, tmp_path):
    rows = [{"id": i, "first": "anna", "second": word} for i, word in enumerate(["bob", "paris", "bob"])]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for kind in ("jsonl", "csv", "parquet"):
        predict_files(text_onnx, [tmp_path / "in.jsonl"], tmp_path / f"out.{kind}")
    found = answers(tmp_path / "out.jsonl")
    assert [list(answer) for answer in found] == [["id", "label", "probability", "probabilities"]] * 3
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == found
    with open(tmp_path / "out.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [json.loads(row["probabilities"]) for row in table] == [answer["probabilities"] for answer in found]
    assert [(int(row["id"]), row["label"], float(row["probability"])) for row in table] == [
        (answer["id"], answer["label"], answer["probability"]) for answer in found
    ]


def test_pictures_and_folders_of_them(image_onnx, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in (1, 2):
        Image.fromarray(grey[i]).save(folder / f"{i}.png")
    (folder / "notes.md").write_text("no picture")
    Image.fromarray(grey[0]).save(tmp_path / "0.bmp")
    predict_files(image_onnx, [tmp_path / "0.bmp", folder], tmp_path / "out.jsonl")
    found = answers(tmp_path / "out.jsonl")
    assert [answer.pop("file") for answer in found] == [
        str(tmp_path / "0.bmp"),
        *(str(folder / f"{i}.png") for i in (1, 2)),
    ]
    for answer, one in zip(found, Shipped.open(image_onnx).predict(list(grey)), strict=True):
        assert answer["probabilities"] == pytest.approx(one["probabilities"], abs=2e-6)


def test_answers_go_to_stdout_as_they_come(ner_onnx, expected, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("\n".join(" ".join(words) for words in WORDS))
    predict_files(ner_onnx, [tmp_path / "in.txt"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == expected


def test_little_is_read_ahead(ner_onnx):
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield Given(["anna"] * (read % 5 + 1), "here", {"id": read})

    answers = stream(Shipped.open(ner_onnx), endless(), batch_size=2)
    first, second = next(answers), next(answers)
    assert [answer["id"] for answer in first + second] == list(range(1, 65))
    assert [len(answer["words"]) for answer in first] == [i % 5 + 1 for i in range(1, 33)]
    assert read == 64


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "x.jsonl",
            b'{"tokens": ["a"]}\n\n{"tokens": 5}',
            r"x.jsonl, line 3, has 5 for its tokens: give a list of strings",
        ),
        ("x.jsonl", b'{"tokens": ["a"]}\n{', r"x.jsonl, line 2, is not JSON: write one object a line"),
        ("x.jsonl", b"[" * 100_000, r"x.jsonl, line 1, is not JSON"),
        ("x.jsonl", b'{"words": []}', r"x.jsonl, line 1, has no 'tokens', only 'words': give tokens"),
        ("x.jsonl", b'{"tokens": "\xff"}', r"x.jsonl' cannot be read \('utf-8' codec"),
        ("x.jsonl.gz", b"plain", r"x.jsonl.gz' cannot be read \(Not a gzipped file"),
        ("x.csv", b"id,tokens\n1,a\n2\n", r"x.csv, line 3, has 1 fields where the header has 2"),
        ("x.csv", b'tokens\n"a"b\n', r"x.csv, line 2, is not CSV"),
        ("x.parquet", b"PAR1", r"x.parquet' cannot be read as Parquet"),
        ("x.txt", b"\n \n", r"there are no inputs in .*x.txt: give a file with some"),
        (
            "x.doc",
            b"",
            r"x.doc' has a suffix that tells no format: give one of .jsonl, .csv, .txt, .parquet, .png, .wav",
        ),
        ("x.png", b"", r"x.png has no 'tokens', only 'bytes'"),
    ],
)
def test_a_mistake_is_told_by_its_place_and_nothing_is_written(name, content, sentence, ner_onnx, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        predict_files(ner_onnx, [tmp_path / name], tmp_path / "out.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_what_is_not_there_is_told(ner_onnx, tmp_path):
    with pytest.raises(DataError, match=r"none.txt' does not exist: give the path"):
        next(read_inputs([tmp_path / "none.txt"]))
    with pytest.raises(DataError, match="holds no pictures or recordings: give files such as .bmp, "):
        next(read_inputs([tmp_path]))
    (tmp_path / "in.txt").write_text("anna")
    with pytest.raises(DataError, match=r"--out '.*x.doc' has a suffix that tells no format: give one of .jsonl, .csv"):
        predict_files(ner_onnx, [tmp_path / "in.txt"], tmp_path / "x.doc")
    with pytest.raises(DataError, match=r"--out '.*x.csv' cannot be written \(No such file"):
        predict_files(ner_onnx, [tmp_path / "in.txt"], tmp_path / "none/x.csv")


def test_a_table_wants_alike_answers(ner_onnx, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": 1, "tokens": ["a"]}\n{"tokens": ["b"]}')
    for kind in ("csv", "parquet"):
        with pytest.raises(DataError, match="an answer has words where the first has id, words: give all inputs an id"):
            predict_files(ner_onnx, [tmp_path / "in.jsonl"], tmp_path / f"out.{kind}")
    (tmp_path / "in.jsonl").write_text('{"id": 1, "tokens": ["a"]}\n{"id": "b", "tokens": ["b"]}')
    with pytest.raises(DataError, match="the answers are no table"):
        predict_files(ner_onnx, [tmp_path / "in.jsonl"], tmp_path / "out.parquet")


def test_a_line_ends_where_files_end_lines():
    from pathlib import Path

    from setpoint.shipping.reading import _text

    found = list(_text(io.StringIO("a\u2028b\r\nc\x85d\n", newline=""), Path("x.txt")))
    assert [given.value for given in found] == ["a\u2028b", "c\x85d"]
