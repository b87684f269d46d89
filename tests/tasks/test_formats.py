"""Plain text, tables, SQuAD's layout, packed files."""

import gzip
import json
import lzma

import pytest

from reading import lines, message, read, rows, write
from setpoint.pretraining import read_texts
from setpoint.tasks import packed

# ---------------------------------------------------------------------------------------------------- plain text


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz", "x.txt.xz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_of_text_is_an_example_and_all_together_are_the_file(tmp_path, name, end):
    text = f" = Title = {end}{end}two\u2028 lines{end}last"
    for given in (text, text + end):
        got = read(write(tmp_path / name, given), ("text",), text="line")["train"]
        assert got["line"][:] == [" = Title = ", "", "two\u2028 lines", "last"]
    assert end.join(got["line"]) == text


def test_blank_lines_at_the_end_are_lines_too(tmp_path):
    assert read(write(tmp_path / "x.txt", "a\n\n\n"), ("text",))["train"]["text"][:] == ["a", "", ""]


def test_what_is_asked_for_says_what_a_txt_file_is(tmp_path):
    path = write(tmp_path / "x.txt", "EU B-ORG\nrejects O\n\n")
    assert rows(read(path, ("tokens", "tags"))["train"]) == [{"tokens": ["EU", "rejects"], "ner_tags": ["B-ORG", "O"]}]
    assert read(path, ("text",))["train"]["text"][:] == ["EU B-ORG", "rejects O", ""]
    assert read(path, ("text",), format="text", limit=1)["train"]["text"][:] == ["EU B-ORG"]


def test_a_text_without_labels_says_so(tmp_path):
    path = write(tmp_path / "x.txt", "a\n")
    assert message(read, path, ("text", "label")) == "data.train has no column 'label', only text: set data.label"


# ---------------------------------------------------------------------------------------------------- packed files


@pytest.mark.parametrize(("name", "pack"), [("x.jsonl.gz", gzip.compress), ("x.jsonl.xz", lzma.compress)])
def test_what_unpacks_to_too_much_is_refused_before_it_is_all_there(tmp_path, monkeypatch, name, pack):
    path = tmp_path / name
    path.write_bytes(pack(b'{"text": "a"}\n' * 100))
    monkeypatch.setattr(packed, "allowance", lambda path: 1400)
    assert len(read(path, ("text",))["train"]) == 100
    monkeypatch.setattr(packed, "allowance", lambda path: 1399)
    assert message(read, path, ("text",)) == (
        f"data.train '{path}' cannot be read (it unpacks to more than 1399 bytes): give a UTF-8 file"
    )


def test_the_allowance_grows_with_the_file(tmp_path):
    path = tmp_path / "x.gz"
    with open(path, "wb") as file:
        file.truncate(2**24)
    assert packed.allowance(path) == 100 * 2**24
    path.write_bytes(b"")
    assert packed.allowance(path) == 2**30


@pytest.mark.parametrize("damage", ["plain", "cut", "changed"])
def test_a_broken_xz_is_refused(tmp_path, damage):
    whole = lzma.compress(lines({"text": f"text {i}"} for i in range(200)).encode())
    middle = len(whole) // 2
    content = {"plain": b"text", "cut": whole[:-9], "changed": whole[:middle] + b"\0\1\2" + whole[middle + 3 :]}
    path = tmp_path / "x.jsonl.xz"
    path.write_bytes(content[damage])
    text = message(read, path, ("text",))
    assert text.startswith(f"data.train '{path}' cannot be read (")
    assert text.endswith("): give a UTF-8 file")


def test_two_packed_files_one_after_another_are_one(tmp_path):
    for pack, name in ((gzip.compress, "x.txt.gz"), (lzma.compress, "x.txt.xz")):
        (tmp_path / name).write_bytes(pack(b"a\nb") + pack(b"c\n"))
        assert read(tmp_path / name, ("text",))["train"]["text"][:] == ["a", "bc"]


def test_raw_text_for_pre_training_may_be_xz(tmp_path):
    assert read_texts(write(tmp_path / "x.jsonl.xz", '{"text": "a"}\n')) == ["a"]


# ---------------------------------------------------------------------------------------------------- tables

RATINGS = "196\t242\t3\t881250949\n186\t302\t4\t891717742\n"
COLUMNS = {"columns": ["user", "item", "rating", "timestamp"], "time": "timestamp"}
INTERACTIONS = ("user", "item", "rating", "time")


@pytest.mark.parametrize("name", ["u.data", "u.data.gz", "u.tsv", "u.tsv.xz"])
def test_a_table_without_a_header_gets_its_names_from_the_recipe(tmp_path, name):
    assert rows(read(write(tmp_path / name, RATINGS), INTERACTIONS, **COLUMNS)["train"]) == [
        {"user": "196", "item": "242", "rating": 3.0, "timestamp": 881250949.0},
        {"user": "186", "item": "302", "rating": 4.0, "timestamp": 891717742.0},
    ]


def test_any_name_will_do_where_the_format_is_given_and_csv_may_lack_a_header_too(tmp_path):
    path = write(tmp_path / "u1.test.gz", RATINGS)
    assert read(path, INTERACTIONS, format="tsv", **COLUMNS)["test"]["item"][:] == ["242", "302"]
    path = write(tmp_path / "x.csv", '"a, b",1\nc,2\n')
    assert rows(read(path, ("text", "label"), columns=["text", "label"])["train"]) == [
        {"text": "a, b", "label": "1"},
        {"text": "c", "label": "2"},
    ]


def test_a_quote_between_tabs_is_a_letter(tmp_path):
    path = write(tmp_path / "x.tsv", 'text\tlabel\n"a\t1\nb "c" d"\t2\n\n')
    assert rows(read(path, ("text", "label"))["train"]) == [
        {"text": '"a', "label": "1"},
        {"text": 'b "c" d"', "label": "2"},
    ]


def test_a_field_too_many_or_too_few_is_named(tmp_path):
    path = write(tmp_path / "u.data", RATINGS + "1\t2\t3\n")
    assert message(read, path, INTERACTIONS, **COLUMNS) == (
        f"{path}, line 3 has 3 fields where data.columns has 4: give every line a field for each column"
    )
    path = write(tmp_path / "x.tsv", "text\tlabel\na\n")
    assert message(read, path, ("text",)) == (
        f"{path}, line 2 has 1 fields where the header has 2: give every line a field for each column"
    )


@pytest.mark.parametrize("value", ["x", "", "nan", "inf", "1e999"])
@pytest.mark.parametrize("field", ["rating", "time"])
def test_what_is_no_number_is_refused(tmp_path, field, value):
    one = {"user": "a", "item": "b", "rating": "1", "time": "2"}
    table = "\n".join("\t".join(row) for row in (one, one.values(), (one | {field: value}).values()))
    assert message(read, write(tmp_path / "x.tsv", table), INTERACTIONS, time="time") == (
        f"example 'train-1' of data.train has '{value}' in column '{field}': give a number"
    )


def test_users_and_items_are_names_and_numbers_numbers_whatever_the_file(tmp_path):
    given = [{"user": 7, "item": "x", "rating": "4.5"}, {"user": "b", "item": 3, "rating": 2}]
    made = [{"user": "7", "item": "x", "rating": 4.5}, {"user": "b", "item": "3", "rating": 2.0}]
    assert rows(read(write(tmp_path / "x.jsonl", lines(given)), INTERACTIONS)["train"]) == made
    from datasets import Dataset

    Dataset.from_dict({"user": [7, 8], "item": ["x", "y"], "rating": ["4.5", "2"]}).to_parquet(tmp_path / "x.parquet")
    got = read(tmp_path / "x.parquet", INTERACTIONS)["train"]
    assert rows(got) == [{"user": "7", "item": "x", "rating": 4.5}, {"user": "8", "item": "y", "rating": 2.0}]
    assert got["id"][:] == ["train-0", "train-1"]
    assert message(read, write(tmp_path / "y.jsonl", lines([given[0] | {"user": None}])), INTERACTIONS) == (
        "example 'train-0' of data.train has null in column 'user': give a name or a whole number"
    )


def test_ratings_may_be_none_at_all(tmp_path):
    path = write(tmp_path / "x.tsv", "user\titem\na\tb\n")
    assert rows(read(path, INTERACTIONS, rating=None)["train"]) == [{"user": "a", "item": "b"}]


# ---------------------------------------------------------------------------------------------------- SQuAD

ASKING = ("question", "context", "answers")


def squad(*articles):
    return json.dumps({"version": "1.1", "data": list(articles)})


def article(title, *paragraphs):
    return {"title": title, "paragraphs": list(paragraphs)}


def paragraph(context, **asked):
    return {
        "context": context,
        "qas": [
            {
                "id": name,
                "question": f"{name}?",
                "answers": [{"text": a, "answer_start": context.index(a)} for a in given],
            }
            for name, given in asked.items()
        ],
    }


TWO = squad(
    article("Oslo", paragraph("Oslo is a city.", q1=["Oslo", "a city"]), paragraph("It is old.", q2=["old"], q3=[])),
    article("Rome", paragraph("Rome, too.", q4=["Rome"])),
)


@pytest.mark.parametrize(("name", "fields"), [("dev.json", {}), ("dev.json.gz", {}), ("dev", {"format": "squad"})])
def test_squad_is_read_question_by_question(tmp_path, name, fields):
    got = read(write(tmp_path / name, TWO), ASKING, **fields)["train"]
    assert got["id"][:] == ["train-q1", "train-q2", "train-q3", "train-q4"]
    assert rows(got) == [
        {
            "question": "q1?",
            "context": "Oslo is a city.",
            "answers": {"text": ["Oslo", "a city"], "answer_start": [0, 8]},
        },
        {"question": "q2?", "context": "It is old.", "answers": {"text": ["old"], "answer_start": [6]}},
        {"question": "q3?", "context": "It is old.", "answers": {"text": [], "answer_start": []}},
        {"question": "q4?", "context": "Rome, too.", "answers": {"text": ["Rome"], "answer_start": [0]}},
    ]


def test_articles_stay_together(tmp_path):
    many = squad(*(article(f"t{i}", paragraph(f"c {i}", **{f"q{i}{k}": ["c"] for k in range(3)})) for i in range(10)))
    path = write(tmp_path / "x.json", many)
    got = read(path, ASKING, validation=None, test=None, split_by="title")
    contexts = {split: list(dict.fromkeys(dataset["context"])) for split, dataset in got.items()}
    assert contexts == {
        "train": [f"c {i}" for i in range(7)],
        "validation": ["c 7"],
        "test": ["c 8", "c 9"],
    }
    assert got["test"]["id"][:] == [f"test-q{i}{k}" for i in (8, 9) for k in range(3)]


def test_the_same_rows_may_be_jsonl(tmp_path):
    row = {"question": "who?", "context": "Bob did.", "answers": {"text": ["Bob"], "answer_start": [0]}, "more": 1}
    for name, fields in (("x.jsonl", {}), ("x.json", {"format": "jsonl"})):
        got = read(write(tmp_path / name, lines([row])), ASKING, **fields)["train"]
        assert rows(got) == [{name: row[name] for name in ASKING}]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "data"),
        ("[]", "data"),
        ('{"data": 3}', "data"),
        ('{"data": [3]}', "data[0]"),
        (lines([{"question": "a"}, {"question": "b"}]), "data"),
        ("[" * 100_000, "data"),
        (squad(article("a", paragraph("c", q="c")), {"title": "b"}), "data[1]"),
        (squad(article("a", {"qas": []})), "data[0].paragraphs[0]"),
        (squad(article("a", paragraph("c", q="c"), {"context": "c", "qas": [{"id": "x"}]})),
         "data[0].paragraphs[1].qas[0]"),
        (squad(article("a", {"context": "c", "qas": [{"id": "x", "question": "q", "answers": [{"text": "c"}]}]})),
         "data[0].paragraphs[0].qas[0]"),
        (squad(article("a", {"context": "c", "qas": [{"id": "x", "question": "q", "answers": 3}]})),
         "data[0].paragraphs[0].qas[0]"),
    ],
)  # fmt: skip
def test_another_layout_is_refused_by_its_place(tmp_path, text, place):
    path = write(tmp_path / "x.json", text)
    assert message(read, path, ASKING) == (
        f"{path} has not the layout of SQuAD's JSON, at {place}: give data[].paragraphs[].qas[] with context, id, "
        "question and answers, or set data.format"
    )


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("question", None, "has null in column 'question': give a string"),
        ("context", 3, "has 3 in column 'context': give a string"),
        ("answers", None, "has null in column 'answers': give text and answer_start, two lists of one length"),
        ("answers", ["b"], "has ['b'] in column 'answers': give text and answer_start, two lists of one length"),
        ("answers", {"text": ["b"], "answer_start": [0]},
         "has the answer 'b', but its context has 'a' at 0: count characters from 0"),
        ("answers", {"text": ["b"], "answer_start": [9]},
         "has the answer 'b', but its context has '' at 9: count characters from 0"),
    ],
)  # fmt: skip
def test_a_question_that_is_none_is_named(tmp_path, field, value, sentence):
    good = {"id": "q", "question": "?", "context": "ab", "answers": {"text": ["b"], "answer_start": [1]}}
    path = write(tmp_path / "x.jsonl", lines([good, good | {"id": "r", field: value}]))
    assert message(read, path, ASKING) == f"example 'train-r' of data.train {sentence}"


@pytest.mark.parametrize(
    "value",
    [
        {"text": ["b"]},
        {"text": ["b"], "answer_start": []},
        {"text": [""], "answer_start": [0]},
        {"text": ["b"], "answer_start": [-1]},
        {"text": ["b"], "answer_start": [True]},
        {"text": "b", "answer_start": [1]},
    ],
)
def test_answers_are_texts_and_as_many_places(tmp_path, value):
    path = write(tmp_path / "x.jsonl", lines([{"question": "?", "context": "ab", "answers": value}]))
    text = message(read, path, ASKING)
    assert text.startswith("example 'train-0' of data.train has {")
    assert text.endswith("} in column 'answers': give text and answer_start, two lists of one length")


def test_an_answer_in_a_data_set_is_held_to_its_context_too(tmp_path):
    from datasets import Dataset

    columns = {"question": ["?"], "context": ["ab"], "answers": [{"text": ["b"], "answer_start": [0]}]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "x.parquet")
    assert message(read, tmp_path / "x.parquet", ASKING) == (
        "example 'train-0' of data.train has the answer 'b', but its context has 'a' at 0: count characters from 0"
    )
