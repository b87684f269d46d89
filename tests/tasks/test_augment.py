import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from setpoint.recipe import DataRecipe
from setpoint.recipe_images import CutmixAugment, FlipAugment, MixupAugment, ShiftAugment
from setpoint.targets.views import SeededViews
from setpoint.tasks.augment import augmented, beta, cutmix, flip, mixup, shift
from setpoint.tasks.image_classification import ImageClassification


def bytes_image(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=5, shape=(2, 4, 6)):
    """Images of one number each, so that every pixel tells where it is from."""
    return [
        {"id": f"x{i}", "pixel_values": torch.full(shape, float(i + 1), dtype=torch.float64), "labels": i}
        for i in range(count)
    ]


# ---------------------------------------------------------------------------------------------------- shifting


def moved(image, down, right):
    """An image moved, one pixel at a time; what comes in is 0."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for channel, row, column in itertools.product(range(channels), range(height), range(width)):
        if 0 <= row + down < height and 0 <= column + right < width:
            result[channel, row + down, column + right] = image[channel, row, column]
    return result


@pytest.mark.parametrize(("shape", "most"), [((1, 5, 4), 1), ((3, 4, 6), 2), ((1, 2, 2), 3)])
def test_a_shift_is_one_of_all_small_moves_and_each_occurs(shape, most):
    image = torch.from_numpy(bytes_image(*shape)).float() + 1  # no pixel is 0 before
    steps = range(-most, most + 1)
    moves = {(down, right): moved(image, down, right) for down in steps for right in steps}
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(60 * len(moves) // 5):
        got = shift(image, most, generator)
        matches = [move for move, expected in moves.items() if torch.equal(got, expected)]
        assert matches
        seen.update(matches)
    assert seen == set(moves)


def test_a_shift_is_drawn_from_its_generator_alone():
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))

    def draws(seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.stack([shift(image, 2, generator) for _ in range(8)])

    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(draws(3), draws(3))
    assert not torch.equal(draws(3), draws(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_augmented_example_is_the_same_but_for_its_pixels():
    image = torch.from_numpy(bytes_image(1, 4, 4)).float() + 1
    example = {"id": "x", "pixel_values": image, "labels": 3}
    made = ImageClassification(DataRecipe(dataset="digits", augment={"pixels": 1}))
    source = generator()
    views = [made.augment(example, source, made.data.augment, [example]) for _ in range(20)]
    moves = [moved(image, down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    assert all(any(torch.equal(view["pixel_values"], move) for move in moves) for view in views)
    assert any(not torch.equal(view["pixel_values"], image) for view in views)
    assert all(view["id"] == "x" and view["labels"] == 3 for view in views)
    assert torch.equal(example["pixel_values"], torch.from_numpy(bytes_image(1, 4, 4)).float() + 1)


def test_a_flip_mirrors_every_second_image():
    image = torch.from_numpy(bytes_image(3, 2, 5)).float()
    mirrored = torch.stack([image[:, :, 4 - column] for column in range(5)], -1)
    source = generator()
    got = [flip(image, source) for _ in range(400)]
    flipped = [torch.equal(one, mirrored) for one in got]
    assert all(same or torch.equal(one, image) for one, same in zip(got, flipped, strict=True))
    assert stats.binomtest(sum(flipped), 400).pvalue > 0.01


# ---------------------------------------------------------------------------------------------------- mixing


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_share_is_of_the_beta_distribution(alpha):
    """By moments in closed form, mean 1/2 and variance 1/(4(2 alpha + 1)); and by SciPy's distribution."""
    source = generator(1)
    draws = np.array([beta(alpha, source) for _ in range(4000)])
    assert draws.min() >= 0
    assert draws.max() <= 1
    assert draws.mean() == pytest.approx(0.5, abs=0.03)
    assert draws.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)
    assert stats.kstest(draws, stats.beta(alpha, alpha).cdf).pvalue > 0.01


@given(st.floats(0, 1), st.integers(0, 2**32))
def test_a_mean_of_two_images_is_so_pixel_by_pixel(share, seed):
    first, second = torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=generator(seed))
    got = mixup(first, second, share)
    for place in itertools.product(range(2), range(3), range(4)):
        one, two = float(first[place]), float(second[place])
        assert float(got[place]) == pytest.approx(share * one + (1 - share) * two, abs=1e-12)
    assert torch.allclose(got, mixup(second, first, 1 - share), atol=1e-12)


@given(st.floats(0, 1), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_a_cut_is_one_rectangle_of_the_other_image_around_its_centre(share, height, width, seed):
    first, second = torch.zeros(2, height, width), torch.ones(2, height, width)
    got = cutmix(first, second, share, generator(seed))
    source = generator(seed)
    row, column = int(torch.randint(height, (), generator=source)), int(torch.randint(width, (), generator=source))
    tall, wide = round(height * np.sqrt(1 - share)), round(width * np.sqrt(1 - share))
    for channel, y, x in itertools.product(range(2), range(height), range(width)):
        inside = -(tall // 2) <= y - row < tall - tall // 2 and -(wide // 2) <= x - column < wide - wide // 2
        assert float(got[channel, y, x]) == inside
    assert torch.equal(first, torch.zeros(2, height, width))


def test_a_cut_takes_the_share_that_was_drawn_where_no_border_cuts_it():
    """The pixels of the second image are 1 − share of all, for every centre that is far enough from the border."""
    first, second = torch.zeros(1, 40, 40), torch.ones(1, 40, 40)
    most = max(float(cutmix(first, second, 0.75, generator(seed)).mean()) for seed in range(50))
    assert most == pytest.approx(0.25)


def test_both_extremes_of_a_share_are_the_images_themselves():
    first, second = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    assert torch.equal(mixup(first, second, 1.0), first)
    assert torch.equal(mixup(first, second, 0.0), second)
    assert torch.equal(cutmix(first, second, 1.0, generator()), first)


@pytest.mark.parametrize("step", [MixupAugment(alpha=1.0), CutmixAugment(alpha=1.0)])
def test_a_partner_is_any_example_of_the_training_split(step):
    data = images()
    source, partners = generator(), set()
    for _ in range(100):
        got = augmented(data[0]["pixel_values"], [step], data, source)
        if step.kind == "cutmix":
            partners |= set(got.flatten().tolist())
        else:
            assert len(set(got.flatten().tolist())) == 1
            assert 1 <= float(got[0, 0, 0]) <= 5
            partners.add(min(int(np.ceil(float(got[0, 0, 0]))), 5))
    assert partners == {1, 2, 3, 4, 5}


def test_a_partner_goes_through_the_steps_before():
    """A shift by up to 3 of 4 pixels leaves zeros in nearly every image; mixed alone, none would have any."""
    data = images(shape=(1, 4, 4))
    steps = [ShiftAugment(pixels=3), FlipAugment(), MixupAugment(alpha=1.0)]
    source = generator(3)
    mixed = [augmented(data[0]["pixel_values"], steps, data, source) for _ in range(200)]
    # Pixels that only the partner reaches, or only the image, or both, or neither.
    assert max(len(set(one.flatten().tolist())) for one in mixed) == 4
    assert any(bool((one == 0).any()) for one in mixed)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mixed_view_depends_on_id_view_and_seed_alone(kind):
    data = images()
    made = ImageClassification(DataRecipe(dataset="digits", augment=[{"pixels": 1}, {"kind": kind}], views=3))

    def views(seed=0):
        return SeededViews(data, lambda e, g: made.augment(e, g, made.data.augment, data), 3, seed)

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = list(views()), [views()[i] for i in reversed(range(15))][::-1], list(views(seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert [view["id"] for view in first] == views().ids == [f"x{i}#{v}" for v in range(3) for i in range(5)]
    assert all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in zip(first, other, strict=True))
    assert torch.equal(views()[7]["pixel_values"], first[7]["pixel_values"])
    assert [view["labels"] for view in first] == [0, 1, 2, 3, 4] * 3
