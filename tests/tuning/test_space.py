import math

import pytest

from setpoint.tuning.space import Dimension


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "", "low": 0.0, "high": 1.0}, "needs a name"),
        ({"name": "a"}, "neither low and high nor choices"),
        ({"name": "a", "low": 1.0}, "neither low and high nor choices"),
        ({"name": "a", "low": 1.0, "high": 1.0}, "low < high"),
        ({"name": "a", "low": 2.0, "high": 1.0}, "low < high"),
        ({"name": "a", "low": 0.0, "high": math.inf}, "both finite"),
        ({"name": "a", "low": math.nan, "high": 1.0}, "both finite"),
        ({"name": "a", "low": 0.0, "high": 1.0, "log": True}, "low must be > 0"),
        ({"name": "a", "choices": ("x", "x")}, "repeat"),
        ({"name": "a", "low": 0.0, "high": 1.0, "choices": ("x",)}, "give one of them"),
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Dimension(**fields)


def test_choices_have_no_ends():
    assert Dimension("a", -1.0, 1.0).ends == (-1.0, 1.0)
    with pytest.raises(ValueError, match="choices, not a range"):
        Dimension("a", choices=("x", "y")).ends  # noqa: B018
