import itertools

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from setpoint.errors import DataError
from setpoint.tasks.labels import as_names, class_names, feature_names, sorted_labels, to_ids


def test_names_come_with_integer_labels_and_lists_of_them():
    names = ["no", "yes"]
    features = Features({
        "label": ClassLabel(names=names), "tags": List(ClassLabel(names=names)), "number": Value("int64"),
        "words": List(Value("string")),
    })  # fmt: skip
    dataset = Dataset.from_dict({"label": [1], "tags": [[1, 0]], "number": [1], "words": [["a"]]}, features=features)
    assert feature_names(dataset, "label") == feature_names(dataset, "tags") == ("no", "yes")
    assert feature_names(dataset, "number") is None
    assert feature_names(dataset, "words") is None


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ([1, 0, 1], ["no", "yes"], ["yes", "no", "yes"]),
        (["yes", "no"], ["no", "yes"], ["yes", "no"]),
        (["1"], ["no", "yes"], ["1"]),
        ([1, 0], None, ["1", "0"]),
        ([-1, 1], ["no", "yes"], ["-1", "yes"]),  # a hub's mark of "no label" is not the last name
        ([2], ["no", "yes"], ["2"]),
        ([0.5, "a"], None, ["0.5", "a"]),
        ([], ["no"], []),
    ],
)
def test_integers_are_looked_up_where_there_are_names(values, names, expected):
    assert as_names(values, names) == expected


def test_ids_are_places_in_the_list():
    assert to_ids(["c", "a", "a", "b"], ("b", "a", "c"), "train") == [2, 1, 1, 0]
    assert to_ids(iter(["a"]), ["a"], "train") == [0]
    assert to_ids([], ("a", "b"), "train") == []


def test_an_unknown_label_is_named_with_the_known_ones():
    with pytest.raises(DataError) as caught:
        to_ids(iter(["a", "y", "x", "y"]), ("a", "b"), "test")
    assert str(caught.value) == (
        "data.test has the label 'x', which is none of a, b: mend the data, or list every label in data.labels"
    )


def test_no_more_than_twelve_of_the_known_labels_are_listed():
    with pytest.raises(DataError, match=r"none of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11: mend the data"):
        to_ids(["x"], [str(i) for i in range(50)], "train")


@pytest.mark.parametrize(
    "expected",
    [
        ("O", "B-LOC", "I-LOC", "B-MISC", "B-PER", "I-PER"),
        ("0", "1", "2", "10", "11"),
        ("-1", "0", "2"),
        ("1", "10", "2", "a"),
        ("01", "1", "002", "2", "10"),
        ("1", "²"),
        ("--1", "2"),
        ("-", "1"),
        ("1", "١"),
        ("O", "A", "B", "o"),
        ("negative", "neutral", "positive"),
        ("only",),
        (),
    ],
    ids=str,
)
def test_the_order_of_labels_does_not_depend_on_the_datas(expected):
    for values in itertools.islice(itertools.permutations(expected), 0, None, 7):
        assert sorted_labels(values) == expected
        assert sorted_labels(iter([*values, *values])) == expected


def test_classes_are_those_listed_or_kept_or_found():
    assert class_names(("b", "a"), ("x", "y"), ["z"]) == ("b", "a")
    assert class_names(None, ("y", "x"), ["z"]) == ("y", "x")
    assert class_names(None, None, iter(["10", "9", "10"])) == ("9", "10")


@pytest.mark.parametrize(
    ("kept", "found", "sentence"),
    [
        (None, ["pos", "pos"], "data.train has one class only, 'pos': "),
        (("pos",), ["a", "b"], "data.train has one class only, 'pos': "),
        (None, [], "data.train has no class: "),
    ],
)
def test_what_is_nothing_to_tell_apart_is_refused(kept, found, sentence):
    with pytest.raises(DataError) as caught:
        class_names(None, kept, found)
    assert str(caught.value) == sentence + "give examples of two classes or more, or list them in data.labels"


def test_a_long_label_is_one_short_line():
    with pytest.raises(DataError) as caught:
        to_ids(["a\nb" * 99], ("x", "y"), "test")
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)
