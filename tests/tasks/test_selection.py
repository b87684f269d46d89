"""Which rows a split has: shares of one file, rows with certain values, limits by split."""

import warnings

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from reading import SPLITS, lines, message, read, write
from setpoint.errors import SetpointWarning
from setpoint.recipe import DataRecipe
from setpoint.recipe_data import LimitRecipe, SharesRecipe
from setpoint.tasks.readers import read_splits
from setpoint.tasks.selection import as_key, cut, limited, with_values

ONE = {"validation": None, "test": None}


def table(n, *groups):
    return lines({"text": f"t{i}", "group": groups[i % len(groups)]} for i in range(n))


def texts(splits):
    return {split: dataset["text"][:] for split, dataset in splits.items()}


# ---------------------------------------------------------------------------------------------------- shares


def test_the_articles_of_squad_are_cut_as_its_readme_says():
    """48 titles: the last 10 for testing; the first 38 are for training and validation."""
    parts = cut([f"title {i}" for i in range(48)], SharesRecipe(train=0.7, validation=0.1, test=0.2))
    assert {split: (rows[0], rows[-1]) for split, rows in parts.items()} == {
        "train": (0, 33), "validation": (34, 37), "test": (38, 47),
    }  # fmt: skip


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=80),
    st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0.25, 0.25), (0.9, 0.1, 0.0), (0.34, 0.33, 0.33)]),
)
def test_no_group_is_in_two_splits_and_no_row_is_lost(values, shares):
    train, validation, test = shares
    order = list(dict.fromkeys(values))
    # By hand: walk over the groups in the order of their first row, and count.
    first, second = round(train * len(order)), round((train + validation) * len(order))
    expected = [{*order[:first]}, {*order[first:second]}, {*order[second:]}][: 3 if test else 2]
    shares = SharesRecipe(train=train, validation=validation, test=test)
    if not all(expected):
        assert "none of" in message(cut, values, shares)
        return
    parts = cut(values, shares)
    assert list(parts) == list(SPLITS[: len(expected)])
    assert [{values[row] for row in rows} for rows in parts.values()] == expected
    assert sorted(row for rows in parts.values() for row in rows) == list(range(len(values)))
    assert all(list(rows) == sorted(rows) for rows in parts.values())


def test_one_file_is_cut_into_three_splits_by_groups(tmp_path):
    path = write(tmp_path / "x.jsonl", table(20, *"zyxwvutsrq"))
    got = read(path, ("text",), **ONE, split_by="group")
    assert texts(got) == {
        "train": [f"t{i}" for i in (*range(7), *range(10, 17))],
        "validation": ["t7", "t17"],
        "test": ["t8", "t9", "t18", "t19"],
    }
    assert got["test"]["id"][:] == ["test-8", "test-9", "test-18", "test-19"]


def test_or_by_rows(tmp_path):
    path = write(tmp_path / "x.txt", "".join(f"t{i}\n" for i in range(10)))
    got = read(path, ("text",), **ONE, shares={"train": 0.5, "validation": 0.2, "test": 0.3})
    assert texts(got) == {
        "train": [f"t{i}" for i in range(5)],
        "validation": ["t5", "t6"],
        "test": ["t7", "t8", "t9"],
    }


def test_the_test_split_may_have_its_own_file(tmp_path):
    path, other = write(tmp_path / "x.jsonl", table(20, *"abcdefghij")), write(tmp_path / "y.jsonl", table(2, "a"))
    got = read(path, ("text",), validation=None, test=other, split_by="group")
    assert {split: len(part) for split, part in got.items()} == {"train": 18, "validation": 2, "test": 2}
    shares = {"train": 0.75, "validation": 0.25}
    got = read(path, ("text",), validation=None, test=other, shares=shares)
    assert texts(got) == {
        "train": [f"t{i}" for i in range(15)],
        "validation": [f"t{i}" for i in range(15, 20)],
        "test": ["t0", "t1"],
    }


def test_a_split_of_a_data_set_is_cut_too(tmp_path):
    columns = {"text": [f"t{i}" for i in range(10)]}
    DatasetDict(train=Dataset.from_dict(columns)).save_to_disk(tmp_path / "d")
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    got = read_splits(DataRecipe(dataset=str(tmp_path / "d"), shares=shares), ("text",))
    assert texts(got) == {"train": columns["text"][:8], "validation": ["t8"], "test": ["t9"]}


@pytest.mark.parametrize(
    ("fields", "content", "sentence"),
    [
        ({"split_by": "group"}, table(3, "a"),
         "data.shares gives data.validation none of 1 groups: give it a larger share"),
        ({"split_by": "title"}, table(3, "a"), "data.train has no column 'title', only text, group: set data.split_by"),
        ({"split_by": "group"}, table(3, "a", None),
         "example 'train-1' of data.train has null in column 'group': give a name or a whole number"),
        ({"split_by": "group"}, "", "data.train has no examples: give a split with some"),
        ({"shares": {"train": 0.6, "validation": 0.2, "test": 0.2}}, table(1, "a"),
         "data.shares gives data.validation none of 1 groups: give it a larger share"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused(tmp_path, fields, content, sentence):
    assert message(read, write(tmp_path / "x.jsonl", content), ("text",), **ONE, **fields) == sentence


# ---------------------------------------------------------------------------------------------------- only


def test_each_split_has_the_rows_with_its_values(tmp_path):
    path = write(tmp_path / "x.jsonl", table(9, 0, 1, 2))
    only = {"train": {"group": [0, 2]}, "test": {"group": [1], "text": ["t1", "t2", "t7"]}}
    got = read(path, ("text",), only=only)
    assert texts(got) == {
        "train": ["t0", "t2", "t3", "t5", "t6", "t8"],
        "validation": [f"t{i}" for i in range(9)],
        "test": ["t1", "t7"],
    }
    assert got["test"]["id"][:] == ["test-1", "test-7"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
def test_a_value_is_the_same_in_every_format(tmp_path, name):
    values = [0, 1, 10, 1]
    if name == "x.parquet":
        Dataset.from_dict({"text": list("abcd"), "n": [float(i) for i in values]}).to_parquet(tmp_path / name)
    elif name == "x.csv":
        write(tmp_path / name, "text,n\n" + "".join(f"{t},{n}\n" for t, n in zip("abcd", values, strict=True)))
    else:
        write(tmp_path / name, lines({"text": t, "n": n} for t, n in zip("abcd", values, strict=True)))
    got = read(tmp_path / name, ("text",), only={split: {"n": [1]} for split in SPLITS})
    assert got["train"]["text"][:] == ["b", "d"]
    assert got["train"]["id"][:] == ["train-1", "train-3"]


@given(st.one_of(st.integers(-99, 99), st.booleans(), st.sampled_from(["a", "true", "1.5", 1.5, None, 0.0])))
def test_a_value_is_found_where_and_only_where_it_is(value):
    values = ["a", "b", 3, "4", True, False, 1.5, None, 0]
    found = with_values(values, [value], range(len(values)))
    assert found == [i for i, other in enumerate(values) if as_key(other) == as_key(value)]
    assert (as_key(value) == as_key(not value)) is False


@pytest.mark.parametrize(
    ("only", "sentence"),
    [
        ({"train": {"speaker": [0]}}, "data.train has no column 'speaker', only text, group: set data.only.train"),
        ({"test": {"group": [7, "x"]}},
         "data.only.test leaves no example, as none has [7, 'x'] in column 'group': give values that are there"),
        ({"train": {"group": [0], "text": ["t1"]}},
         "data.only.train leaves no example, as none has ['t1'] in column 'text': give values that are there"),
    ],
)  # fmt: skip
def test_a_choice_that_leaves_nothing_is_refused(tmp_path, only, sentence):
    assert message(read, write(tmp_path / "x.jsonl", table(9, 0, 1, 2)), ("text",), only=only) == sentence


def test_rows_are_cut_then_chosen_then_limited(tmp_path):
    path = write(tmp_path / "x.jsonl", lines({"text": f"t{i}", "group": i // 4, "odd": i % 2} for i in range(40)))
    only = {split: {"odd": [1]} for split in SPLITS}
    got = read(path, ("text",), **ONE, split_by="group", only=only, limit={"train": 3, "test": 1})
    assert texts(got) == {"train": ["t1", "t3", "t5"], "validation": ["t29", "t31"], "test": ["t33"]}


# ---------------------------------------------------------------------------------------------------- limits


def test_a_limit_may_be_of_one_split(tmp_path):
    path = write(tmp_path / "x.jsonl", table(50, "a"))
    got = read(path, ("text",), limit={"train": 20, "test": 2})
    assert {split: len(part) for split, part in got.items()} == {"train": 20, "validation": 50, "test": 2}
    got = read(path, ("text",), validation=None, limit={"train": 40, "validation": 3})
    assert texts(got)["validation"] == ["t9", "t19", "t29"]
    assert (len(got["train"]), len(got["test"])) == (36, 50)
    assert DataRecipe(dataset="digits", limit=3) == DataRecipe(dataset="digits", limit=dict.fromkeys(SPLITS, 3))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(1, 400))
def test_spread_takes_as_much_of_each_class_of_a_sorted_file(sizes, most):
    rows = [number for number, size in enumerate(sizes) for _ in range(size)]
    kept = limited(rows, LimitRecipe(train=most, spread=True), "train")
    assert len(kept) == min(most, len(rows))
    assert list(kept) == sorted(kept)
    share = len(kept) / len(rows)
    for number, size in enumerate(sizes):
        assert abs(kept.count(number) - share * size) < 1


def test_a_limit_of_a_sorted_file_says_which_classes_it_leaves_out(tmp_path):
    path = write(tmp_path / "x.jsonl", lines({"text": f"t{i}", "label": f"c{i // 20}"} for i in range(120)))
    with pytest.warns(SetpointWarning) as told:
        read(path, ("text", "label"), limit={"train": 60, "test": 20})
    assert [str(one.message) for one in told] == [
        "data.limit keeps the first 60 training examples, which are of 3 of 6 classes: set data.limit.spread to true"
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for limit in (None, 120, {"train": 61}, {"train": 60, "spread": True}, {"test": 20}):
            read(path, ("text", "label"), limit=limit)
    with pytest.warns(SetpointWarning, match="of 3 of 6 classes"):
        read(path, ("text", "label"), validation=None, limit={"train": 60})


def test_what_is_held_out_is_spread_too(tmp_path):
    path = write(tmp_path / "x.jsonl", table(50, "a"))
    got = read(path, ("text",), validation=None, limit={"train": 40, "validation": 2, "spread": True})
    assert texts(got)["validation"] == ["t11", "t36"]  # of t11, t23, t36 and t48, each tenth of t0, t1, t2, t3, t5, …


def test_a_recipe_that_is_no_value_is_refused():
    with pytest.raises(ValidationError, match="adds up to 0.9"):
        SharesRecipe(train=0.7, validation=0.1, test=0.1)
