import subprocess
import sys

import pytest
import torch

from setpoint.targets.views import RandomViews, SeededViews

DATA = [{"id": name, "x": 0.0} for name in ("a", "b", "c")]


def noise(example, generator):
    return example | {"x": torch.rand((), generator=generator).item()}


def by_id(views):
    return {example["id"]: example["x"] for example in views}


def test_each_example_has_its_views():
    views = SeededViews(DATA, noise, views=4)
    assert len(views) == 12
    assert sorted(by_id(views)) == sorted(f"{name}#{view}" for name in "abc" for view in range(4))
    assert len(set(by_id(views).values())) == 12


def test_iterating_ends():
    assert len(list(SeededViews(DATA, noise, views=2))) == 6
    with pytest.raises(IndexError):
        SeededViews(DATA, noise, views=2)[6]


def test_a_view_depends_on_nothing_that_was_read_before():
    views = SeededViews(DATA, noise, views=2)
    forwards = [views[i] for i in range(6)]
    torch.manual_seed(5)
    assert [views[i] for i in reversed(range(6))] == forwards[::-1]


def test_a_view_follows_its_example_and_not_its_place():
    assert by_id(SeededViews(DATA[::-1], noise, views=2)) == by_id(SeededViews(DATA, noise, views=2))
    more = by_id(SeededViews([{"id": "new", "x": 0.0}, *DATA], noise, views=3))
    assert by_id(SeededViews(DATA, noise, views=2)).items() <= more.items()


def test_seeds_give_other_views():
    first, second = (by_id(SeededViews(DATA, noise, views=2, seed=seed)) for seed in (0, 1))
    assert not set(first.values()) & set(second.values())


def test_views_are_the_same_in_another_process():
    # Python's own hash() of a string is another one in each process.
    code = (
        "import torch; from setpoint.targets.views import SeededViews;"
        "v = SeededViews([{'id': 'a'}], lambda e, g: e | {'x': torch.rand((), generator=g).item()}, 1);"
        "print(repr(v[0]['x']))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(there) == SeededViews(DATA, noise, views=1)[0]["x"]


def test_random_views_are_new_at_each_reading_and_follow_the_global_seed():
    views = RandomViews(DATA, noise)
    assert len(views) == 3
    torch.manual_seed(0)
    first = [views[i] for i in range(3)]
    second = [views[i] for i in range(3)]
    assert [example["id"] for example in first] == ["a", "b", "c"]
    assert len({example["x"] for example in first + second}) == 6
    torch.manual_seed(0)
    assert [views[i] for i in range(3)] == first
