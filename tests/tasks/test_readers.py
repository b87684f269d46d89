import csv
import gzip
import json
import warnings

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from sklearn.datasets import load_digits

from setpoint.errors import DataError
from setpoint.recipe import DataRecipe
from setpoint.tasks import readers
from setpoint.tasks.readers import read_splits

SENTENCES = [
    {"tokens": ["EU", "rejects", "calls"], "ner_tags": ["B-ORG", "O", "O"]},
    {"tokens": ["Peter", "Blackburn"], "ner_tags": ["B-PER", "I-PER"]},
    {"tokens": ["1996-08-22"], "ner_tags": ["O"]},
]
TWO = "EU B-ORG\nrejects O\ncalls O\n\nPeter B-PER\nBlackburn I-PER\n\n1996-08-22 O\n\n"
FOUR = (
    "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\ncalls NNS B-NP O\n\n"
    "Peter NNP B-NP B-PER\nBlackburn NNP I-NP I-PER\n\n1996-08-22 CD I-NP O\n\n"
)


def write(path, content):
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def numbered(n):
    return lines({"text": f"text {i}"} for i in range(n))


def read(path, columns=("text",), **fields):
    """A file as all three splits."""
    return read_splits(DataRecipe(**{"train": str(path), "validation": str(path), "test": str(path)} | fields), columns)


TAGGED = ("tokens", "tags")


def rows(dataset):
    return [{name: value for name, value in row.items() if name != "id"} for row in dataset]


def message(call, *args, **fields):
    with pytest.raises(DataError) as caught:
        call(*args, **fields)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- CoNLL


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        FOUR,
        TWO.rstrip("\n"),
        TWO.replace("\n", "\r\n"),
        FOUR.replace("\n", "\r\n").rstrip(),
        TWO.replace(" ", "\t"),
        TWO.replace("\n\n", "\n\n \n\n"),
        "\n\n" + TWO,
        "-DOCSTART- -X- -X- O\n\n" + FOUR,
        TWO.replace("\n\nPeter", "\n-DOCSTART- O\nPeter"),  # a new document ends a sentence, blank line or not
        TWO + "-DOCSTART- O\n\n",
        "\N{BYTE ORDER MARK}" + TWO,
    ],
    ids=["two", "four", "unended", "crlf", "crlf-unended", "tabs", "blanks", "leading", "docstart", "inside", "last",
         "bom"],
)  # fmt: skip
def test_conll_is_read_however_it_is_written(tmp_path, text):
    splits = read(write(tmp_path / "x.conll", text), TAGGED)
    assert list(splits) == ["train", "validation", "test"]
    for dataset in splits.values():
        assert rows(dataset) == SENTENCES


@pytest.mark.parametrize("name", ["x.conll", "x.txt", "x.iob", "x.iob2", "x.bio", "x.conll.gz", "x.txt.gz"])
def test_the_suffix_tells_conll(tmp_path, name):
    assert rows(read(write(tmp_path / name, FOUR), TAGGED)["test"]) == SENTENCES


def test_tokens_and_tags_have_the_names_of_the_recipe(tmp_path):
    got = read(write(tmp_path / "x.conll", TWO), TAGGED, tokens="words", tags="pos")["train"]
    assert rows(got) == [{"words": s["tokens"], "pos": s["ner_tags"]} for s in SENTENCES]


def test_letters_of_any_language_are_kept(tmp_path):
    tokens = ["Zürich", "北京", "Łódź", "🙂"]
    got = read(write(tmp_path / "x.conll", "".join(f"{token} O\n" for token in tokens)), TAGGED)
    assert got["train"]["tokens"][0] == tokens


def test_old_macs_lines_are_lines(tmp_path):
    assert rows(read(write(tmp_path / "x.conll", TWO.replace("\n", "\r")), TAGGED)["train"]) == SENTENCES
    assert len(read(write(tmp_path / "x.jsonl", numbered(3).replace("\n", "\r")))["train"]) == 3


@pytest.mark.parametrize("sign", ["\u2028", "\x85", "\xa0", "\u3000", "\x1d", "\x0b"])
def test_a_sign_of_unicode_is_part_of_its_token(tmp_path, sign):
    text = f"10{sign}000 B-NUM\n{sign} O\nx{sign} \t O\n"
    got = read(write(tmp_path / "x.conll", text), TAGGED)["train"]
    assert rows(got) == [{"tokens": [f"10{sign}000", sign, f"x{sign}"], "ner_tags": ["B-NUM", "O", "O"]}]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_token_without_a_tag_is_named_by_its_line(tmp_path, end):
    path = write(tmp_path / "x.conll", end.join(["EU B-ORG", "", "Peter B-PER", "Blackburn", "x O"]))
    assert message(read, path) == f"{path}, line 4: token 'Blackburn' has no tag: write token and tag in columns"


# ---------------------------------------------------------------------------------------------------- other files

RECORDS = [
    {"text": "a, “b”", "label": "yes", "tokens": ["x", "y"], "ner_tags": [1, 0], "score": 0.5},
    {"text": "Zürich\nis a city", "label": "no", "tokens": [], "ner_tags": [], "score": -2.0},
]
EVERY = ("text", "text_pair", "label", "tokens", "tags")


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.jsonl.gz"])
@pytest.mark.parametrize("text", [lines(RECORDS), "\n" + lines(RECORDS).replace("\n", "\r\n\r\n").rstrip()])
def test_jsonl_keeps_its_values_and_numbers_become_names(tmp_path, name, text):
    got = rows(read(write(tmp_path / name, text), EVERY)["test"])
    assert got == [
        {name: value for name, value in row.items() if name != "score"}
        | {"ner_tags": [str(i) for i in row["ner_tags"]]}
        for row in RECORDS
    ]


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_is_text_with_its_quotes_taken_off(tmp_path, name, end):
    text = end.join(["text,label", '"a, ""b""",1', '"two', 'lines",0', "", "plain,07", ""])
    assert rows(read(write(tmp_path / name, text), ("text", "label"))["train"]) == [
        {"text": 'a, "b"', "label": "1"},
        {"text": f"two{end}lines", "label": "0"},
        {"text": "plain", "label": "07"},
    ]


def test_parquet_keeps_its_values_and_types(tmp_path):
    features = Features(
        {"text": Value("string"), "label": ClassLabel(names=["no", "yes"]), "tokens": List(Value("string"))}
    )
    columns = {name: [row[name] for row in RECORDS] for name in features}
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "x.parquet")
    got = read(tmp_path / "x.parquet", ("text", "label", "tokens"))["validation"]
    numbers = {"yes": 1, "no": 0}
    assert rows(got) == [
        {"text": row["text"], "label": numbers[row["label"]], "tokens": row["tokens"]} for row in RECORDS
    ]
    assert got.features["label"].names == ["no", "yes"]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("csv", "text\na O\n", [{"text": "a O"}]),
        ("jsonl", '{"text": "a"}\n', [{"text": "a"}]),
        ("conll", "text\ta\n", [{"tokens": ["text"], "ner_tags": ["a"]}]),
    ],
)
@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.data", "x", "x.data.gz"])
def test_a_format_that_is_given_counts_before_the_suffix(tmp_path, kind, text, expected, name):
    columns = TAGGED if kind == "conll" else ("text",)
    assert rows(read(write(tmp_path / name, text), columns, format=kind)["train"]) == expected


def test_parquet_is_read_where_the_format_says_so(tmp_path):
    Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "x.csv")
    assert rows(read(str(tmp_path / "x.csv"), format="parquet")["train"]) == [{"text": "a"}]


def test_each_split_has_its_own_file_and_format(tmp_path):
    splits = read(
        write(tmp_path / "a.jsonl", '{"text": "train"}\n'),
        validation=write(tmp_path / "b.csv", "text\nvalidation\n"),
        test=write(tmp_path / "c.jsonl.gz", '{"text": "test"}\n'),
    )
    assert {split: dataset["text"][0] for split, dataset in splits.items()} == {s: s for s in splits}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("there", ["nothing", "a folder"])
def test_a_file_that_is_not_there_is_refused(tmp_path, split, there):
    path = tmp_path / "no.jsonl"
    if there == "a folder":
        path.mkdir()
    good = write(tmp_path / "x.jsonl", numbered(3))
    assert message(read, good, **{split: str(path)}) == (
        f"data.{split} '{path}' does not exist: give the path of a readable file"
    )


@pytest.mark.parametrize("name", ["x.dat", "x", "x.gz", "x.xls.gz"])
def test_a_suffix_that_tells_nothing_is_refused(tmp_path, name):
    path = write(tmp_path / name, TWO)
    assert message(read, path) == f"data.train '{path}' has a suffix that tells no format: set data.format"


@pytest.mark.parametrize("content", [b"", b"text,label\n", b"PAR1 and no more PAR1"])
def test_what_is_not_parquet_is_refused(tmp_path, content):
    path = write(tmp_path / "x.parquet", content)
    assert message(read, path) == f"data.train '{path}' is not Parquet: give another file, or set data.format"


@pytest.mark.parametrize("name", ["x.conll", "x.jsonl", "x.csv", "x.conll.gz"])
def test_what_is_not_utf8_is_refused(tmp_path, name):
    path = write(tmp_path / name, "Zürich O\n".encode("latin-1"))
    assert message(read, path) == (
        f"data.train '{path}' cannot be read ('utf-8' codec can't decode byte 0xfc in position 1: "
        "invalid start byte): give a UTF-8 file"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TWO.encode(), "Not a gzipped file (b'EU')"),
        (
            gzip.compress(TWO.encode(), mtime=0)[:-9],
            "Compressed file ended before the end-of-stream marker was reached",
        ),
        (gzip.compress(TWO.encode(), mtime=0)[:-8] + bytes(8), "CRC check failed"),
    ],
    ids=["plain", "cut", "damaged"],
)
def test_a_broken_archive_is_refused(tmp_path, content, reason):
    (tmp_path / "x.conll.gz").write_bytes(content)
    text = message(read, str(tmp_path / "x.conll.gz"))
    assert text.startswith(f"data.train '{tmp_path}/x.conll.gz' cannot be read ({reason}")
    assert text.endswith("): give a UTF-8 file")


@pytest.mark.parametrize("line", ['{"text": "a"', '["a"]', "3", '"a"', "null", "text", "{'text': 'a'}"])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    path = write(tmp_path / "x.jsonl", f'{{"text": "a"}}\n\n{line}\n')
    assert message(read, path) == f"{path}, line 3 is not a JSON object: write one object a line"


def damaged():
    data = bytearray(gzip.compress(bytes(range(256)) * 30, mtime=0))
    data[20] ^= 0xFF
    return bytes(data)


def test_a_broken_stream_in_an_archive_is_refused(tmp_path):
    (tmp_path / "x.conll.gz").write_bytes(damaged())
    text = message(read, tmp_path / "x.conll.gz")
    assert text.startswith(f"data.train '{tmp_path}/x.conll.gz' cannot be read (Error -3 while decompressing data")


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0c"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_a_sign_of_unicode_is_part_of_its_text(tmp_path, name, sign):
    text = f"a{sign}b"
    content = json.dumps({"text": text}, ensure_ascii=False) + "\n" if name == "x.jsonl" else f"text\n{text}\n"
    assert read(write(tmp_path / name, content))["train"]["text"][:] == [json.loads(json.dumps(text))]


def test_a_line_that_is_nested_too_deep_is_named(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"text": "a"}\n{"text": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    assert message(read, path) == f"{path}, line 2 is nested too deep: write plain fields"


@pytest.mark.parametrize("line", ["a", "a,1,3", '"a\n",1,', "a,1,"])
def test_a_line_of_csv_with_another_number_of_fields_is_named(tmp_path, line):
    path = write(tmp_path / "x.csv", f"text,label\nx,0\n{line}\n")
    number, count = 3 + line.count("\n"), line.count(",") + 1
    assert message(read, path) == (
        f"{path}, line {number} has {count} fields where the header has 2: give every line a field for each column"
    )


@pytest.mark.parametrize(("text", "number"), [('text,label\n"a,1\nb,0\n', 3), ('text,label\n"a"b,1\n', 2)])
def test_a_line_of_csv_with_a_quote_too_many_is_named(tmp_path, text, number):
    path = write(tmp_path / "x.csv", text)
    assert message(read, path).startswith(f"{path}, line {number} is not CSV (")


def test_a_long_text_of_csv_is_read_and_the_limit_of_others_is_left_alone(tmp_path):
    before = csv.field_size_limit()
    text = "a" * 200_000
    got = read(write(tmp_path / "x.csv", f'text,label\n"{text}",x\n'), ("text", "label"))["train"]
    assert rows(got) == [{"text": text, "label": "x"}]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("value", [1, "b", 0.5, None, [], {"a": [1, "b"]}, 2**70, "\ud800"])
def test_a_column_that_nobody_asked_for_may_hold_anything(tmp_path, value):
    path = write(tmp_path / "x.jsonl", lines([{"text": "x", "other": "a"}, {"text": "y", "other": value}]))
    assert rows(read(path)["train"]) == [{"text": "x"}, {"text": "y"}]


def test_a_field_that_a_line_lacks_is_refused(tmp_path):
    path = write(tmp_path / "x.jsonl", lines([{"text": "a", "label": 2}, {"text": "b"}]))
    assert message(read, path, ("text", "label")) == (
        "example 'train-1' of data.train has null in column 'label': give a name or a whole number"
    )
    assert message(read, write(tmp_path / "x.csv", "text,label\na,1\nb,\n"), ("text", "label")) == (
        "example 'train-1' of data.train has '' in column 'label': give a name or a whole number"
    )


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(("name", "content"), [
    ("e.conll", ""), ("e.conll", "\n-DOCSTART- O\n\n"), ("e.jsonl", "\n"), ("e.csv", ""), ("e.csv", "text,label\n"),
])  # fmt: skip
def test_a_split_without_examples_is_refused(tmp_path, split, name, content):
    good = write(tmp_path / "x.jsonl", numbered(20))
    empty = write(tmp_path / name, content)
    assert message(read, good, **{split: empty}) == f"data.{split} has no examples: give a split with some"


# ---------------------------------------------------------------------------------------------------- datasets


def saved(folder, **splits):
    DatasetDict({split: Dataset.from_dict(columns) for split, columns in splits.items()}).save_to_disk(folder)
    return str(folder)


def texts(split, n=12):
    return {"text": [f"{split} {i}" for i in range(n)]}


def test_a_folder_that_datasets_wrote_is_read(tmp_path):
    folder = saved(tmp_path / "d", train=texts("train"), validation=texts("validation", 2), test=texts("test", 3))
    splits = read_splits(DataRecipe(dataset=folder, validation="validation"), ("text",))
    assert {split: dataset["text"][:] for split, dataset in splits.items()} == {
        split: texts(split, n)["text"] for split, n in (("train", 12), ("validation", 2), ("test", 3))
    }


def test_its_splits_may_have_other_names(tmp_path):
    folder = saved(tmp_path / "d", learn=texts("learn"), dev=texts("dev", 2), train=texts("wrong"), test=texts("test"))
    splits = read_splits(DataRecipe(dataset=folder, train="learn", validation="dev"), ("text",))
    assert {split: dataset["text"][0] for split, dataset in splits.items()} == {
        "train": "learn 0", "validation": "dev 0", "test": "test 0",
    }  # fmt: skip
    assert [splits[split]["id"][1] for split in ("train", "validation", "test")] == [
        "train-1",
        "validation-1",
        "test-1",
    ]


def test_its_features_are_kept(tmp_path):
    features = Features({"tags": List(ClassLabel(names=["O", "X"])), "label": ClassLabel(names=["no", "yes"])})
    made = Dataset.from_dict({"tags": [[0, 1]] * 10, "label": [1] * 10}, features=features)
    DatasetDict(train=made, test=made).save_to_disk(tmp_path / "d")
    for dataset in read_splits(DataRecipe(dataset=str(tmp_path / "d"), tags="tags"), ("label", "tags")).values():
        assert dataset.features["label"].names == ["no", "yes"]
        assert dataset.features["tags"].feature.names == ["O", "X"]


def test_a_validation_split_that_is_not_named_is_not_read(tmp_path):
    folder = saved(tmp_path / "d", train=texts("train", 20), validation=texts("validation"), test=texts("test"))
    splits = read_splits(DataRecipe(dataset=folder), ("text",))
    assert splits["validation"]["text"][:] == ["train 9", "train 19"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_that_a_folder_lacks_is_named(tmp_path, split):
    folder = saved(tmp_path / "d", train=texts("train"), test=texts("test"))
    assert message(read_splits, DataRecipe(dataset=folder, **{split: "held_out"}), ("text",)) == (
        f"data.dataset '{folder}' has no split 'held_out': set data.{split}"
    )


def test_a_folder_with_no_data_is_refused(tmp_path):
    (tmp_path / "d").mkdir()
    text = message(read_splits, DataRecipe(dataset=str(tmp_path / "d")), ("text",))
    assert text.startswith(f"data.dataset '{tmp_path}/d' cannot be loaded, split 'train' (")
    assert text.endswith("): give a hub id, a folder that datasets wrote, or local files")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError("no connection\nTraceback …"), "no connection"), (ValueError("  "), "ValueError")],
)
def test_a_data_set_that_cannot_be_had_is_one_sentence(monkeypatch, error, reason):
    def fails(*args, **options):
        raise error

    monkeypatch.setattr(readers, "load_dataset", fails)
    assert message(read_splits, DataRecipe(dataset="nobody/nothing", train="learn"), ("text",)) == (
        f"data.dataset 'nobody/nothing' cannot be loaded, split 'learn' ({reason}): "
        "give a hub id, a folder that datasets wrote, or local files"
    )


def test_a_hub_data_set_is_asked_for_its_configuration_and_splits(monkeypatch):
    asked = []

    def load(*args, **options):
        asked.append((args, options))
        return Dataset.from_dict(texts(options["split"]))

    monkeypatch.setattr(readers, "load_dataset", load)
    splits = read_splits(DataRecipe(dataset="glue", config="sst2", validation="dev"), ("text",))
    assert asked == [(("glue", "sst2"), {"split": split}) for split in ("train", "dev", "test")]
    assert splits["validation"]["text"][0] == "dev 0"


def test_the_digits_are_all_there_once_and_evenly_split():
    digits = load_digits()
    splits = read_splits(DataRecipe(dataset="digits"), ("image", "label"))
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 1077, "validation": 270, "test": 450}
    images = np.concatenate([np.asarray(dataset["image"][:]) for dataset in splits.values()])
    labels = [label for dataset in splits.values() for label in dataset["label"]]
    assert sorted(
        ((image.ravel() * 16).tolist(), int(label)) for image, label in zip(images, labels, strict=True)
    ) == sorted((image.ravel().tolist(), label) for image, label in zip(digits.images, digits.target, strict=True))
    shares = np.bincount(digits.target) / len(digits.target)
    for dataset in splits.values():
        counts = np.bincount([int(label) for label in dataset["label"]], minlength=10)
        assert np.abs(counts - shares * len(dataset)).max() < 1.5


# ---------------------------------------------------------------------------------------------------- ids and splits


def test_ids_are_unique_over_the_splits(tmp_path):
    splits = read(write(tmp_path / "x.jsonl", numbered(3)))
    assert {split: dataset["id"][:] for split, dataset in splits.items()} == {
        split: [f"{split}-{i}" for i in range(3)] for split in ("train", "validation", "test")
    }


@pytest.mark.parametrize(("own", "names"), [(["b", "a", "z/1"], ["b", "a", "z/1"]), ([7, 3, 10], ["7", "3", "10"])])
def test_ids_of_the_data_are_kept(tmp_path, own, names):
    splits = read(write(tmp_path / "x.jsonl", lines({"id": name, "text": "a"} for name in own)))
    for split, dataset in splits.items():
        assert dataset["id"][:] == [f"{split}-{name}" for name in names]
        assert dataset.features["id"] == Value("string")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("own", [["b", "a", "b"], [7, 1, "7"]])
def test_an_id_that_two_examples_have_is_named(tmp_path, split, own):
    good = write(tmp_path / "x.jsonl", numbered(3))
    path = write(tmp_path / "y.jsonl", lines({"id": name, "text": "a"} for name in own))
    assert message(read, good, **{split: path}) == (
        f"two examples of data.{split} have the id '{split}-{own[0]}': give each its own, or none"
    )


@pytest.mark.parametrize(("own", "shown"), [(None, "null"), ("", "''"), ("a\nb", r"'a\nb'"), (0.5, "0.5"), ([], "[]")])
def test_what_names_no_example_is_no_id(tmp_path, own, shown):
    path = write(tmp_path / "x.jsonl", lines([{"id": "a", "text": "a"}, {"id": own, "text": "b"}]))
    assert message(read, path) == (
        f"example 'train-1' of data.train has {shown} in column 'id': give a string of one line or a whole number"
    )


def test_ids_of_a_data_set_are_checked_too(tmp_path):
    folder = saved(tmp_path / "d", train={"text": ["a", "b"], "id": ["x", "x"]}, test={"text": ["a"]})
    assert message(read_splits, DataRecipe(dataset=folder), ("text",)) == (
        "two examples of data.train have the id 'train-x': give each its own, or none"
    )


def test_every_tenth_training_example_is_held_out(tmp_path):
    path = write(tmp_path / "x.jsonl", numbered(35))
    splits = read(path, validation=None)
    assert splits["validation"]["text"][:] == ["text 9", "text 19", "text 29"]
    assert splits["train"]["text"][:] == [f"text {i}" for i in range(35) if i not in (9, 19, 29)]
    assert splits["test"]["text"][:] == [f"text {i}" for i in range(35)]
    assert splits["validation"]["id"][:] == ["train-9", "train-19", "train-29"]
    ids = [name for dataset in splits.values() for name in dataset["id"]]
    assert len(set(ids)) == len(ids) == 70


@pytest.mark.parametrize(("classes", "told"), [(10, True), (20, True), (3, False), (7, False)])
def test_classes_in_turn_of_which_every_tenth_is_the_same_are_warned_of(tmp_path, classes, told):
    rows = ({"text": f"text {i}", "label": f"class {i % classes}"} for i in range(700))
    path = write(tmp_path / "x.jsonl", lines(rows))
    data = DataRecipe(train=path, test=path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_splits(data, ("text", "label"))
    sentence = f"set aside for validation, is of {classes // 10} of {classes} classes: set data.shares to "
    assert [sentence in str(one.message) for one in caught] == [True] * told


def test_nothing_is_held_out_where_there_is_a_validation_split(tmp_path):
    assert len(read(write(tmp_path / "x.jsonl", numbered(35)))["train"]) == 35


def test_too_few_examples_to_hold_a_tenth_out_are_refused(tmp_path):
    path = write(tmp_path / "x.jsonl", numbered(9))
    assert message(read, path, validation=None) == (
        "data.validation is not given and data.train has too few examples to set a tenth aside: "
        "give data.validation or at least 10 training examples"
    )
    assert len(read(write(tmp_path / "y.jsonl", numbered(10)), validation=None)["validation"]) == 1


@pytest.mark.parametrize("limit", [1, 4, 30])
def test_a_limit_takes_the_first_examples_of_each_split(tmp_path, limit):
    long, short = write(tmp_path / "x.jsonl", numbered(30)), write(tmp_path / "y.jsonl", numbered(3))
    splits = read(long, test=short, limit=limit)
    assert splits["train"]["text"][:] == [f"text {i}" for i in range(limit)]
    assert splits["validation"]["id"][:] == [f"validation-{i}" for i in range(limit)]
    assert splits["test"]["text"][:] == [f"text {i}" for i in range(min(limit, 3))]


def test_a_limit_counts_before_a_tenth_is_held_out(tmp_path):
    splits = read(write(tmp_path / "x.jsonl", numbered(50)), validation=None, limit=20)
    assert splits["validation"]["text"][:] == ["text 9", "text 19"]
    assert len(splits["train"]) == 18


# ---------------------------------------------------------------------------------------------------- columns


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    path = write(tmp_path / "x.jsonl", lines([{"id": "x", "sentence": "a"}, {"id": "y", "label": 1}]))
    good = write(tmp_path / "y.jsonl", numbered(3))
    assert message(read, good, validation=path) == (
        "data.validation has no column 'text', only sentence, label: set data.text"
    )
    assert message(read, good, ("text", "text_pair"), text_pair="pair") == (
        "data.train has no column 'pair', only text: set data.text_pair"
    )
