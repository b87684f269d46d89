import dataclasses
import json
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from setpoint import SetpointError, calibrate_temperature, calibration_error, entropy, suggest
from setpoint.errors import TargetError
from setpoint.maths.softness import HIGHEST, LOWEST


def teacher(rows=400, classes=10, seed=0, sure=8.0, spread=2.0):
    """Logits as a trained teacher has them: one class above others that differ, some rows surer than others."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    logits[torch.arange(rows), torch.arange(rows) % classes] += sure
    return logits * (0.3 + torch.rand(rows, 1, generator=generator, dtype=torch.float64))


def smoothed(epsilon, classes=10, rows=400):
    """Logits at the optimum of cross-entropy with label smoothing, with a little noise."""
    generator = torch.Generator().manual_seed(1)
    logits = 0.05 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    logits[torch.arange(rows), torch.arange(rows) % classes] += math.log((1 - epsilon) * classes / epsilon + 1)
    return logits


def numbers(found):
    return found.temperature, found.low, found.high


CASES = {
    "teacher": teacher(),
    "77 classes": teacher(classes=77, sure=9.0),
    "two classes": teacher(classes=2, sure=6.0),
    "smoothed": smoothed(0.1),
    "masked": teacher().masked_fill(torch.arange(10) % 3 == 1, -math.inf),
}


@pytest.mark.parametrize("logits", CASES.values(), ids=CASES)
@pytest.mark.parametrize("k", [0.1, 10.0, 3.7])
def test_scaled_logits_get_a_scaled_temperature(logits, k):
    one, other = suggest(logits), suggest(k * logits)
    assert numbers(other) == pytest.approx([k * t for t in numbers(one)], rel=1e-6)
    assert other.effective_classes == pytest.approx(one.effective_classes, rel=1e-6)


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 30), k=st.floats(0.1, 10), sure=st.floats(0.5, 12))
def test_scale_shift_and_order_of_the_classes(seed, classes, k, sure):
    logits = teacher(40, classes, seed, sure)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    moved = (k * logits)[:, order] + torch.linspace(-500, 500, 40, dtype=torch.float64)[:, None]
    one, other = suggest(logits), suggest(moved)
    assert numbers(other) == pytest.approx([k * t for t in numbers(one)], rel=1e-3)
    assert other.effective_classes == pytest.approx(one.effective_classes, rel=1e-3)
    assert 0 < one.low <= one.temperature <= one.high < math.inf


@pytest.mark.parametrize(("name", "share"), [("teacher", 1 / 4), ("77 classes", 1 / 4), ("smoothed", 1 / 6)])
def test_the_targets_have_the_wanted_share_of_the_entropy(name, share):
    logits = CASES[name]
    found = suggest(logits)
    h = entropy(logits, found.temperature)
    assert float(h.mean()) == pytest.approx(share * math.log(logits.shape[1]), abs=1e-6)
    assert found.effective_classes == pytest.approx(float(h.exp().mean()), rel=1e-6)
    percent = f"{share:.0%} of the entropy there can be, where labels have none and uniform targets all."
    count = f"{found.effective_classes:.2f} effective classes of {logits.shape[1]} on average"
    assert found.reasons[0] == f"At T = {found.temperature:.3g} the targets have {count}, and {percent}"


def test_the_range_is_a_factor_of_four_but_stops_at_labels_and_at_uniform_targets():
    few, many = suggest(teacher()), suggest(CASES["77 classes"])
    assert few.high == pytest.approx(min(4 * few.temperature, few.high))
    assert few.low >= few.temperature / 4
    assert many.high < 4 * many.temperature
    share = entropy(CASES["77 classes"], many.high).mean() / math.log(77)
    assert float(share) == pytest.approx(0.9, abs=1e-6)
    ends = f"A search need not leave {many.low:.3g} to {many.high:.3g}: at these ends they have"
    assert many.reasons[2].startswith(ends)
    # Rows that differ greatly in sureness make softness rise slowly with T; there the factor is what ends the range.
    wide = suggest(teacher() * torch.logspace(-2, 2, 400, dtype=torch.float64)[:, None])
    assert (wide.low, wide.high) == pytest.approx((wide.temperature / 4, wide.temperature * 4))


def test_the_figures_at_one_are_measured():
    logits = CASES["teacher"]
    p = torch.softmax(logits, -1)
    soft = float(torch.special.entr(p).sum(-1).exp().mean())
    off, spread = float((1 - p.amax(-1)).mean()), float(logits.std(-1).mean())
    expected = f"At T = 1 they have {soft:.2f}, with {off:.1%} of the mass off the top class; a row's logits spread by"
    assert suggest(logits).reasons[1] == f"{expected} {spread:.3g}."


@pytest.mark.parametrize("classes", [10, 77, 1000])
def test_a_label_smoothed_teacher_gets_a_temperature_near_one_and_a_range_downward(classes):
    found = suggest(smoothed(0.1, classes))
    assert found.label_smoothing == pytest.approx(0.1, abs=0.01)
    assert found.temperature == pytest.approx(1, abs=0.15)
    assert found.high == pytest.approx(1.5 * found.temperature)
    assert found.low == pytest.approx(found.temperature / 4)
    assert "the teacher looks trained with label smoothing, about 0.1. A higher T would show no more" in told(found)


def test_other_classes_that_are_alike_without_smoothing_are_said():
    found = suggest(5 * smoothed(0.1))
    assert found.label_smoothing == 0
    (gap,) = re.findall(r"alike, ([\d.]+) below the top: the teacher has little to say of them beside", told(found))
    assert float(gap) == pytest.approx(5 * math.log(0.9 * 10 / 0.1 + 1), rel=0.01)
    assert "alike" not in told(suggest(teacher()))


def told(found):
    return " ".join(found.reasons)


def labels_drawn(logits, temperature):
    """Labels of which softmax(logits / T) is the true distribution."""
    generator = torch.Generator().manual_seed(2)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator).squeeze(-1)


@pytest.mark.parametrize(
    ("true", "sentence"),
    [
        (3.0, "The teacher is overconfident: its probabilities fit the labels best at T ="),
        (1.0, "The teacher is about as sure as it should be: it fits the labels best at T ="),
        (0.4, "The teacher is less sure than it could be: it fits the labels best at T ="),
    ],
)
def test_labels_say_how_sure_the_teacher_should_be(true, sentence):
    logits = teacher(4000, sure=4.0)
    labels = labels_drawn(logits, true)
    found = suggest(logits, labels)
    t, before = found.calibration.temperature, found.calibration.ece_before
    assert t == calibrate_temperature(logits, labels) == pytest.approx(true, rel=0.1)
    assert before == calibration_error(logits, labels)
    assert found.calibration.ece_after == calibration_error(logits, labels, t) <= max(before, 0.03)
    assert f"{sentence} {t:.3g} (calibration error {before:.3f}, there {found.calibration.ece_after:.3f})." in told(
        found
    )
    assert dataclasses.replace(found, calibration=None, reasons=()) == dataclasses.replace(suggest(logits), reasons=())


def test_labels_that_say_nothing_of_calibration():
    logits = teacher()
    assert "right on every labelled row" in told(suggest(logits, logits.argmax(-1)))
    assert "make sure that rows and classes are in one order" in told(suggest(logits, logits.argmin(-1)))


def test_rows_labelled_minus_100_do_not_count():
    logits = teacher()
    labels = logits.argmax(-1)
    labels[::3], labels[1] = -100, 5
    padded = torch.where(labels[:, None] == -100, 1e4 * torch.ones(10, dtype=torch.float64), logits)
    kept = labels != -100
    assert suggest(padded, labels) == suggest(logits[kept], labels[kept])
    assert suggest(padded, labels).rows == int(kept.sum())


def test_masked_classes_are_none():
    masked = CASES["masked"]
    live = masked[:, (masked > -math.inf).all(0)]
    assert numbers(suggest(masked)) == pytest.approx(numbers(suggest(live)))
    assert suggest(masked).effective_classes == pytest.approx(suggest(live).effective_classes)
    assert "30.0% of the logits are masked and count as no class." in told(suggest(masked))
    assert "of 7 on average" in told(suggest(masked))
    assert suggest(masked.clamp(min=-1e9)) == suggest(masked)
    assert suggest(masked.float().clamp(min=torch.finfo(torch.float32).min)).temperature == pytest.approx(
        suggest(masked).temperature, rel=1e-5
    )


def test_rows_without_a_difference_have_no_say():
    logits = teacher()
    only = torch.full((5, 10), -math.inf, dtype=torch.float64).index_fill(1, torch.tensor([3]), 2.0)
    mixed = torch.cat([logits, torch.full((20, 10), 7.0, dtype=torch.float64), only])
    found = suggest(mixed)
    assert numbers(found) == pytest.approx(numbers(suggest(logits)))
    assert "25 of 425 rows have equal logits and no say: no T changes them." in found.reasons
    flat = suggest(torch.full((3, 4), 7.0))
    assert (*numbers(flat), flat.effective_classes) == (1, 1, 1, 4)
    assert "With all 4 classes alike in every row there is nothing to distil: look at the teacher." in flat.reasons


def test_targets_that_no_usual_temperature_softens_or_sharpens_are_said():
    huge = suggest(1e4 * torch.eye(10).repeat(5, 1))
    assert "Even at T = 8 they have 1.000 effective classes and say no more than labels" in told(huge)
    assert 1e3 < huge.temperature <= HIGHEST
    tiny = suggest(1e-3 * teacher())
    assert "Even at T = 0.125 they have 10.00 effective classes of 10 and are nearly uniform" in told(tiny)
    assert "Even at" not in told(suggest(teacher()))


@pytest.mark.parametrize(("k", "end"), [(1e-6, LOWEST), (1e6, HIGHEST)])
def test_temperatures_are_kept_in_range(k, end):
    found = suggest(k * teacher())
    assert numbers(found) == (end, end, end)
    assert f"No T from 0.001 to 10000 makes them as soft as wanted; {end:g} is the nearest." in found.reasons


def test_the_range_of_alike_classes_is_kept_too():
    assert suggest(9000 * smoothed(0.1)).high == HIGHEST
    assert suggest(2e-3 * smoothed(0.1)).low == LOWEST


def test_extreme_logits_give_finite_numbers():
    found = suggest(torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 9e3], [0.0, 0.0, 1e-3]]))
    assert all(math.isfinite(x) for x in (*numbers(found), found.effective_classes))
    assert LOWEST <= found.low <= found.temperature <= found.high <= HIGHEST


@pytest.mark.parametrize(("dtype", "within"), [(torch.float16, 1e-2), (torch.bfloat16, 3e-2), (torch.float32, 1e-5)])
def test_narrow_dtypes(dtype, within):
    assert numbers(suggest(teacher().to(dtype))) == pytest.approx(numbers(suggest(teacher())), rel=within)


def test_whole_numbers():
    logits = teacher().round()
    assert suggest(logits.long()) == suggest(logits)


def test_a_sample_is_measured_and_said():
    logits = teacher(50_000, 3)
    found = suggest(logits)
    assert found.rows == 50_000
    assert found.reasons[0] == "Measured on 16,667 of 50,000 rows, evenly spread."
    assert numbers(found) == pytest.approx(numbers(suggest(logits[:20_000])), rel=0.05)
    assert found == suggest(logits)
    wide = suggest(teacher(600, 10_000))
    assert wide.reasons[0] == "Measured on 300 of 600 rows, evenly spread."


@pytest.mark.parametrize(("rows", "step"), [(60_000, 3), (80_000, 4), (100_000, 5)])
def test_a_sample_does_not_keep_time_with_the_rows(rows, step):
    # At a fixed place of every step the sample would be of sure rows alone, or of unsure ones.
    logits = teacher(rows, 3)
    logits[::step] *= 0.1
    assert suggest(logits).temperature == pytest.approx(suggest(logits[:20_000]).temperature, rel=0.03)


def test_a_suggestion_is_json():
    found = dataclasses.asdict(suggest(teacher(), teacher().argmax(-1)))
    fields = "temperature low high effective_classes classes rows calibration label_smoothing reasons"
    assert list(found) == fields.split()
    assert json.loads(json.dumps(found, allow_nan=False))["calibration"].keys() == {
        "temperature",
        "ece_before",
        "ece_after",
    }


def spoilt(row, value):
    logits = teacher(20)
    logits[row] = torch.as_tensor(value)
    return logits


WHOLE = torch.arange(20) % 10
SIGMOID = "give a column for each; for the one logit of a sigmoid, that logit beside a column of zeros"


@pytest.mark.parametrize(
    ("logits", "labels", "sentence"),
    [
        (torch.zeros(5), None, "teacher_logits has the shape [5]: give one row of logits an example, [N, C]"),
        (
            torch.zeros(2, 3, 4),
            None,
            "teacher_logits has the shape [2, 3, 4]: give one row of logits an example, [N, C]",
        ),
        (torch.zeros(0, 4), None, "teacher_logits has no rows: give the logits of some hundred examples or more"),
        (torch.zeros(4, 1), None, f"teacher_logits has 1 class: {SIGMOID}"),
        (torch.zeros(4, 0), None, f"teacher_logits has 0 classes: {SIGMOID}"),
        (spoilt(7, math.nan), None, "teacher_logits has NaN in row 7: mend the teacher, or leave the row out"),
        (spoilt(7, math.inf), None, "teacher_logits has inf in row 7: mend the teacher, or leave the row out"),
        (
            spoilt(7, -math.inf),
            None,
            "teacher_logits has no class that is not masked in row 7: mend the teacher, or leave the row out",
        ),
        (
            torch.softmax(teacher(), -1).half(),
            None,
            "teacher_logits holds probabilities, each row from 0 to 1 with sum 1: take their logarithm",
        ),
        (teacher(20), WHOLE[:5], "labels have the shape [5] where the logits have 20 rows: give one label a row"),
        (teacher(20), WHOLE.float(), "labels are of dtype float32: give whole numbers"),
        (
            teacher(20),
            WHOLE + 1,
            "labels have 10 in row 9, which is none of 10 classes: give 0 to 9, or -100 for a row that does not count",
        ),
        (
            teacher(20),
            WHOLE - 1,
            "labels have -1 in row 0, which is none of 10 classes: give 0 to 9, or -100 for a row that does not count",
        ),
        (
            teacher(20),
            torch.full((20,), -100),
            "labels are -100 in every row, so that none counts: label some, or none at all",
        ),
        (
            CASES["masked"][:20].clamp(min=-1e9),
            WHOLE,
            "labels have 1 in row 1, where that class is masked: mend label or mask",
        ),
    ],
)
def test_a_fault_is_one_sentence(logits, labels, sentence):
    with pytest.raises(TargetError) as raised:
        suggest(logits, labels)
    assert str(raised.value) == sentence
    assert isinstance(raised.value, SetpointError)


def test_log_probabilities_are_logits():
    logits = teacher()
    assert numbers(suggest(torch.log_softmax(logits, -1))) == pytest.approx(numbers(suggest(logits)))


@pytest.mark.shared
def test_cifar10(shared):
    """ResNet-56: T = 1.5 was best there, and 1 to 4 not told apart."""
    import numpy as np

    stored = np.load(shared / "cifar10/teacher_logits_resnet.npz")
    labels = torch.from_numpy(np.load(shared / "cifar10/test.npz")["label"])
    found = suggest(torch.from_numpy(stored["resnet56_test"]), labels)
    assert 1 <= found.temperature <= 4
    assert found.low < 1.5 < found.high
    assert "overconfident" in told(found)
