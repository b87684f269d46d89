"""Which recipes are compared."""

import pytest
import torch

from setpoint.errors import RecipeError
from setpoint.recipe_file import parse_recipe
from setpoint.tuning.candidates import apply, describe, make_candidates
from setpoint.tuning.curve import Score
from setpoint.tuning.prior import suggest
from setpoint.tuning.verdict import decide

LOGITS = 3 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))


def recipe(search=None, **fields):
    tune = {} if search is None else {"search": search}
    return parse_recipe(
        {"name": "x", "task": "image-classification", "data": {"dataset": "digits"}, "teacher": {"model": "t"},
         "student": {"model": "s"}, "temperature": 4, "objective": {"alpha": 0.9},
         "tune": tune | fields.pop("tune", {})}
        | fields
    )  # fmt: skip


def made(search=None, **fields):
    return make_candidates(recipe(search, **fields), suggest(LOGITS), LOGITS)


def test_the_first_is_the_recipe_as_it_stands():
    found = made()
    assert found.values[0] == {"temperature": 4.0, "objective.alpha": 0.9}
    assert found.recipes[0] == recipe().model_copy(update={"tune": None})
    assert all(one.tune is None for one in found.recipes)


def test_the_usual_search_spreads_temperature_and_alpha_evenly():
    found = made(tune={"candidates": 33})
    suggested = suggest(LOGITS)
    assert len(found.recipes) == 33
    assert found.values[1]["temperature"] == pytest.approx(suggested.temperature, rel=5e-3)
    spread = found.values[2:]
    temperatures = torch.tensor(sorted(values["temperature"] for values in spread))
    places = (temperatures / suggested.low).log() / torch.tensor(suggested.high / suggested.low).log()
    # A Latin hypercube: one value in each of as many equal parts of the log scale.
    assert torch.equal((places * len(spread) - 1e-3).long().clamp(0, len(spread) - 1), torch.arange(len(spread)))
    alphas = torch.tensor(sorted(values["objective.alpha"] for values in spread))
    assert float(alphas.diff().max()) < 2 * 0.7 / len(spread)
    assert float(alphas[0]) < 0.35
    assert float(alphas[-1]) > 0.95
    for values, one in zip(found.values, found.recipes, strict=True):
        assert one.temperature.of_teacher == values["temperature"]
        assert one.objective.alpha == values["objective.alpha"]
    [t, _] = found.dimensions
    assert t.log
    assert t.ends == (min(4.0, float(f"{suggested.low:.3g}")), max(4.0, float(f"{suggested.high:.3g}")))


def test_the_same_candidates_for_every_worker():
    assert made() == made()


def test_all_combinations_of_lists_once_each():
    found = made({"temperature": [1, 2, 4, 8], "objective.alpha": [0.5, 0.9]})
    assert found.values[0] == {"temperature": 4.0, "objective.alpha": 0.9}
    combinations = {(values["temperature"], values["objective.alpha"]) for values in found.values}
    assert combinations == {(t, a) for t in (1, 2, 4, 8) for a in (0.5, 0.9)}
    assert len(found.values) == 8
    # A list of numbers is a range of which some points are tried: the verdict may draw a curve through them.
    assert [d.ends for d in found.dimensions] == [(1.0, 8.0), (0.5, 0.9)]
    assert [d.log for d in found.dimensions] == [True, False]


def test_the_recipe_joins_lists_that_do_not_name_it():
    found = made({"temperature": [1, 2]})
    assert found.values[0]["temperature"] == 4.0
    assert sorted(values["temperature"] for values in found.values) == [1.0, 2.0, 4.0]


def test_lists_with_too_many_combinations_are_sampled():
    found = made({"temperature": [1, 2, 3, 5, 8], "objective.alpha": [0.1, 0.3, 0.5, 0.7]}, tune={"candidates": 8})
    assert 2 <= len(found.values) <= 8
    assert len({tuple(values.items()) for values in found.values}) == len(found.values)


def test_policies_are_choices():
    found = made({"temperature": [2, {"policy": "lskd"}, {"policy": "softness", "effective_classes": 2.0}]})
    policies = {one.temperature.policy for one in found.recipes}
    assert policies == {"constant", "lskd", "softness"}
    [dimension] = found.dimensions
    assert not dimension.is_range
    assert all(values["temperature"] in dimension.choices for values in found.values)


def test_softness_in_place_of_the_temperature():
    found = made({"temperature.effective_classes": "auto"}, tune={"candidates": 6})
    suggested = suggest(LOGITS)
    [dimension] = found.dimensions
    assert all(one.temperature.policy == "softness" for one in found.recipes[1:])
    assert found.recipes[0].temperature.policy == "constant"
    for values, one in list(zip(found.values, found.recipes, strict=True))[1:]:
        assert one.temperature.effective_classes == values["temperature.effective_classes"]
    p = torch.softmax(LOGITS.double() / suggested.low, -1)
    softness = float((-(p * p.log()).sum(-1)).exp().mean())
    assert dimension.ends[0] == pytest.approx(softness, rel=6e-3)


def test_one_kind_of_softness_replaces_another():
    base = recipe(
        {"temperature.entropy": [1.0]}, temperature={"policy": "softness", "effective_classes": 3.0, "per": "row"}
    )
    changed = apply(base, {"temperature.entropy": 1.0})
    assert changed.temperature.entropy == 1.0
    assert changed.temperature.effective_classes is None
    assert changed.temperature.per == "row"


def test_any_field_may_be_a_dimension():
    found = made({"train.learning_rate": {"low": 1e-5, "high": 1e-3}, "temperature": {"low": 1, "high": 8}})
    rates = [one.train.learning_rate for one in found.recipes[1:]]
    assert min(rates) < 5e-5
    assert max(rates) > 2e-4
    assert {d.name: d.log for d in found.dimensions} == {"train.learning_rate": True, "temperature": True}


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"temperature": [4]}, "tune.search has no candidate but the recipe as it stands"),
        ({"objective.alfa": [0.5]}, "recipe field 'objective.alfa' is unknown: did you mean 'alpha'?"),
        ({"objective.alpha": [1.5]}, "recipe field 'objective.alpha' is 1.5: give a number from 0 to 1"),
        ({"temperature": [0]}, "recipe field 'temperature' is 0"),
        (
            {"student.dropout": {"low": 0.1, "high": 0.3}},
            "'student.dropout', which in the recipe as it stands is not set",
        ),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_is_trained(search, message):
    with pytest.raises(RecipeError) as caught:
        made(search)
    assert message in str(caught.value)


def test_another_policy_has_no_usual_search():
    with pytest.raises(RecipeError, match="tune.search is empty while temperature.policy is lskd"):
        made(temperature={"policy": "lskd"})


@pytest.mark.parametrize(
    ("standing", "search"),
    [
        ({"policy": "lskd"}, {"temperature": "auto"}),
        ({"policy": "lskd"}, {"temperature": {"low": 1, "high": 8}}),
        ({"teacher": 4, "student": 2}, {"temperature": "auto"}),
        ({"policy": "softness", "effective_classes": 3.0}, {"temperature.entropy": "auto"}),
    ],
)
def test_a_range_needs_a_number_to_be_compared_with(standing, search):
    with pytest.raises(RecipeError, match="tune.search has a range for 'temperature.*give a list of values there"):
        made(search, temperature=standing)


@pytest.mark.parametrize(
    "search",
    [
        {"student.dropout": [0.1, 0.2]},
        {"student.freeze": [{"embeddings": True}]},
        {"train.scheduler": ["linear", "cosine"]},
        {"temperature": [2, {"policy": "lskd"}]},
        {"temperature": {"low": 1, "high": 8}, "train.learning_rate": {"low": 1e-5, "high": 1e-3}},
        {"temperature.effective_classes": "auto"},
    ],
)
def test_whatever_is_searched_can_be_judged(search):
    """A value that the dimensions do not hold would show only once everything is trained."""
    found = made(search)
    scores = [
        Score(c, seed, 10, 0.5 + 0.01 * ((7 * c + seed) % 5)) for c in range(len(found.values)) for seed in (0, 1)
    ]
    verdict = decide(found.dimensions, found.values, scores, full_steps=10, metric="accuracy", validation_rows=500)
    assert verdict.default == 0
    assert verdict.sentences


def test_in_words():
    found = made()
    assert describe(found.dimensions, found.values[0]) == "T = 4, alpha = 0.9"
