import math

import pytest
import torch

from reference import distillation as ref
from setpoint.maths.calibration import calibration_error, expected_error, reliability
from setpoint.maths.solving import calibrate_temperature


def by_loops(logits, labels, t, bins):
    """The definition: rows by bin of their confidence, accuracy against confidence in each."""
    kept = {}
    for row, y in zip(logits, labels, strict=True):
        if y >= 0:
            p = ref.softmax(row, t)
            best = max(range(len(p)), key=p.__getitem__)
            place = next(b for b in range(bins) if p[best] <= (b + 1) / bins + 1e-15)
            kept.setdefault(place, []).append((p[best], best == y))
    total = sum(map(len, kept.values()))
    return (
        sum(abs(sum(right for _, right in rows) - sum(confidence for confidence, _ in rows)) for rows in kept.values())
        / total
    )


@pytest.mark.parametrize("t", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("bins", [1, 5, 15])
def test_the_error_is_the_definition_by_loops(t, bins):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(200, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, 4, (200,), generator=generator)
    expected = by_loops(logits.tolist(), labels.tolist(), t, bins)
    assert calibration_error(logits, labels, t, bins) == pytest.approx(expected, rel=1e-9)


def test_a_model_that_is_right_as_often_as_it_says_has_no_error():
    logits = torch.tensor([[3.0, 1.0, 1.0, 1.0]]).log().repeat(4, 1)  # says ½
    assert calibration_error(logits, torch.tensor([0, 0, 1, 2])) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(logits, torch.tensor([0, 0, 0, 0])) == pytest.approx(0.5, abs=1e-6)
    assert calibration_error(logits, torch.full((4,), -100)) == 0.0


def test_calibrating_lowers_the_error_of_an_overconfident_model():
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(truth.softmax(-1), 1, generator=generator).squeeze(-1)
    overconfident = 3 * truth
    t = calibrate_temperature(overconfident, labels)
    assert t == pytest.approx(3.0, rel=0.1)
    assert calibration_error(overconfident, labels) > 0.2
    assert calibration_error(overconfident, labels, t) < 0.03


def test_the_tables_of_parts_add_up_to_that_of_all():
    generator = torch.Generator().manual_seed(2)
    confidence = torch.rand(300, generator=generator, dtype=torch.float64)
    right = torch.rand(300, generator=generator) < confidence
    whole = reliability(confidence, right, 10)
    parts = reliability(confidence[:100], right[:100], 10) + reliability(confidence[100:], right[100:], 10)
    torch.testing.assert_close(whole, parts)
    for number, (rows, total, correct) in enumerate(whole.tolist()):
        inside = (confidence > number / 10) & (confidence <= (number + 1) / 10)
        assert (rows, correct) == (int(inside.sum()), int((inside & right).sum()))
        assert total == pytest.approx(float(confidence[inside].sum()))
    assert expected_error(whole) == pytest.approx(
        math.fsum(abs(correct - total) for _, total, correct in whole.tolist()) / 300
    )
    assert expected_error(torch.zeros(3, 3)) == 0.0
