"""The gradient of the held-out loss by log T, against autograd and plain differences; and that it leaves no trace."""

import copy
import math

import pytest
import torch
from torch import nn

from setpoint import Constant, DistillationObjective, MetaTemperature, meta_step
from setpoint.errors import DataError, TemperatureError
from setpoint.held_out import HeldOut, hold_out
from setpoint.meta import hypergradient, label_loss
from setpoint.targets.views import SeededViews

RATE = 0.3
ROWS, FEATURES, CLASSES = 12, 5, 4


class Problem:
    """A tiny student, a batch to learn from and one that is held out, all in float64."""

    def __init__(self, alpha=1.0, start=2.0, layers=None, seed=0, **policy):
        torch.manual_seed(seed)
        self.model = layers or nn.Sequential(nn.Linear(FEATURES, 7), nn.Tanh(), nn.Linear(7, CLASSES))
        self.model.double()
        self.policy = MetaTemperature(start=start, **policy).double()
        self.objective = DistillationObjective(self.policy, alpha=alpha)
        self.train = {
            "inputs": torch.randn(ROWS, FEATURES).double(),
            "teacher_logits": 3 * torch.randn(ROWS, CLASSES).double(),
            "labels": torch.randint(0, CLASSES, (ROWS,)),
        }
        self.held = {
            "inputs": torch.randn(ROWS, FEATURES).double(),
            "labels": torch.randint(0, CLASSES, (ROWS,)),
        }

    def train_loss(self, call=None):
        call = call or self.model
        given = {name: self.train[name] for name in ("teacher_logits", "labels")}
        return self.objective(student_logits=call(self.train["inputs"]), **given).total

    def held_loss(self, call=None):
        return label_loss((call or self.model)(self.held["inputs"]), self.held["labels"])

    def found(self, **given):
        return hypergradient(self.policy, self.model, self.train_loss, self.held_loss, RATE, **given)

    def step(self):
        return meta_step(self.objective, self.model, self.train, self.held, RATE)


def by_autograd(problem):
    """Differentiates through an explicit step of gradient descent: the gradient's own graph is kept."""
    named = dict(problem.model.named_parameters())

    def call_with(weights):
        return lambda x: torch.func.functional_call(problem.model, weights, (x,))

    with problem.policy.watched() as theta:
        gradients = torch.autograd.grad(problem.train_loss(), list(named.values()), create_graph=True)
        ahead = {name: w - RATE * g for (name, w), g in zip(named.items(), gradients, strict=True)}
        return float(torch.autograd.grad(problem.held_loss(call_with(ahead)), theta)[0])


def held_after(problem, theta):
    """The held-out loss after a step of plain gradient descent at log T = θ."""
    model, objective = copy.deepcopy(problem.model), copy.deepcopy(problem.objective)
    objective.temperature.log_temperature.fill_(theta)
    given = {name: problem.train[name] for name in ("teacher_logits", "labels")}
    objective(student_logits=model(problem.train["inputs"]), **given).total.backward()
    torch.optim.SGD(model.parameters(), RATE).step()
    with torch.no_grad():
        return float(problem.held_loss(model))


@pytest.mark.parametrize("alpha", [1.0, 0.6])
@pytest.mark.parametrize("start", [0.7, 2.0, 9.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_is_that_of_autograd_through_the_step_and_of_plain_differences(alpha, start, seed):
    problem = Problem(alpha, start, seed=seed)
    found, theta, h = float(problem.found()), float(problem.policy.log_temperature), 1e-4
    assert found == pytest.approx(by_autograd(problem), rel=1e-4)
    plain = (held_after(problem, theta + h) - held_after(problem, theta - h)) / (2 * h)
    assert found == pytest.approx(plain, rel=1e-4)
    assert abs(found) > 1e-6


def test_gradients_that_are_there_already_are_used():
    problem = Problem()
    plain = float(problem.found())
    problem.train_loss().backward()
    there = [weight.grad for weight in problem.model.parameters()]
    assert float(problem.found(gradients=there)) == pytest.approx(plain, rel=1e-12)
    assert float(problem.found(gradients=[10 * g for g in there])) != pytest.approx(plain, rel=1e-3)


def test_a_coarse_dtype_takes_a_longer_difference_to_about_the_same_gradient():
    problem = Problem()
    assert float(problem.found(rounding=torch.bfloat16)) == pytest.approx(float(problem.found()), rel=0.2)
    assert float(problem.found(rounding=torch.bfloat16)) != float(problem.found())


def test_frozen_weights_take_no_part():
    problem = Problem()
    problem.model[0].requires_grad_(False)
    frozen = copy.deepcopy(problem.model[0].state_dict())
    found = float(problem.found())
    named = {n: w for n, w in problem.model.named_parameters() if w.requires_grad}
    assert set(named) == {"2.weight", "2.bias"}
    theta, h = float(problem.policy.log_temperature), 1e-4
    plain = (held_after(problem, theta + h) - held_after(problem, theta - h)) / (2 * h)
    assert found == pytest.approx(plain, rel=1e-4)
    assert [w.requires_grad for w in problem.model.parameters()] == [False, False, True, True]
    assert all(torch.equal(frozen[name], value) for name, value in problem.model[0].state_dict().items())
    problem.model.requires_grad_(False)
    assert problem.found() is None


def test_without_a_divergence_the_temperature_stays():
    problem = Problem(alpha=0.0)
    assert problem.found() is None
    assert problem.step() == pytest.approx(2.0)


def noisy():
    """Dropout, statistics of batches, a frozen part in eval mode: all that a pass could leave a trace in."""
    torch.manual_seed(5)
    layers = nn.Sequential(
        nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Dropout(0.4), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, CLASSES)
    )
    layers[4].eval()
    return layers


def test_a_step_leaves_weights_gradients_buffers_modes_and_random_numbers_as_they_were():
    problem = Problem(layers=noisy())
    optimizer = torch.optim.AdamW(problem.model.parameters(), 1e-2)
    problem.train_loss().backward()
    optimizer.step()

    def everything():
        modes = [module.training for module in problem.model.modules()]
        weights = [(w.detach().clone(), w.grad.clone(), w.requires_grad) for w in problem.model.parameters()]
        return (modes, weights, copy.deepcopy(problem.model.state_dict()), copy.deepcopy(optimizer.state_dict()),
                torch.get_rng_state())  # fmt: skip

    before, t = everything(), problem.policy.temperature
    assert problem.step() != t
    torch.testing.assert_close(everything(), before, rtol=0, atol=0)
    assert not problem.policy.log_temperature.requires_grad


def test_both_sides_of_the_difference_have_the_same_dropout():
    """With masks of their own the difference would be noise of the size 1 / ε."""
    values = set()
    for seed in range(3):
        problem = Problem(layers=nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.4), nn.Linear(8, CLASSES)))
        torch.manual_seed(seed)
        values.add(float(problem.found()))
    assert len(values) == 3  # it did drop
    assert max(abs(value) for value in values) < 1.0


STEP = 0.8  # a longer one overshoots, and the best T is then at an end


def planted(start, sign=1.0, steps=400):
    """A teacher three times too sure of itself, and a student that starts anew at each step.

    Held-out labels have the shares that the calibrated logits say. What T is best for one step is then a number, which
    a grid finds. ``sign`` turns the gradient.
    """
    calibrated = torch.tensor([[2.0, 0.5, 0.0, -1.0]], dtype=torch.float64)
    shares = calibrated.softmax(-1)[0]
    labels = torch.repeat_interleave(torch.arange(CLASSES), (shares * 4000).round().long())
    model = nn.Linear(1, CLASSES, bias=False).double()
    nn.init.zeros_(model.weight)
    objective = DistillationObjective(MetaTemperature(start=start).double(), alpha=1.0)
    inputs, held = torch.ones(1, 1).double(), torch.ones(len(labels), 1).double()

    def train_loss():
        return objective(student_logits=model(inputs), teacher_logits=3 * calibrated).total

    def after(temperature):
        student = copy.deepcopy(model)
        fixed = DistillationObjective(temperature, alpha=1.0)
        fixed(student_logits=student(inputs), teacher_logits=3 * calibrated).total.backward()
        torch.optim.SGD(student.parameters(), STEP).step()
        return float(label_loss(student(held), labels).detach())

    grid = torch.logspace(-1, 2, 121).tolist()
    best = min(grid, key=after)
    for _ in range(steps):
        found = hypergradient(objective.temperature, model, train_loss, lambda: label_loss(model(held), labels), STEP)
        objective.temperature.move(sign * found)
    return best, objective.temperature.temperature


@pytest.mark.parametrize("start", [1.0, 30.0])
def test_the_temperature_goes_to_the_best_one_from_either_side(start):
    best, reached = planted(start)
    assert 4.0 < best < 7.0
    assert reached == pytest.approx(best, rel=0.05)
    _, away = planted(start, sign=-1.0, steps=40)
    assert abs(math.log(away / best)) > abs(math.log(start / best))


@pytest.mark.parametrize("size", [0.0, 1e4, 1e30])
def test_it_stays_in_range_whatever_the_logits(size):
    problem = Problem(start=1e4, rate=5.0)
    problem.train["teacher_logits"] *= size
    problem.train["teacher_logits"][0] = torch.tensor([0.0, -math.inf, 1.0, 2.0])  # a class that the student has
    for start in (1e4, 1e-3):
        problem.policy.log_temperature.fill_(math.log(start))
        for _ in range(10):
            assert 1e-3 <= problem.step() <= 1e4


def test_a_loss_that_is_no_number_moves_nothing():
    problem = Problem()
    problem.train["inputs"][0] = math.nan
    assert problem.found() is None
    assert problem.step() == pytest.approx(2.0)
    assert all(torch.isfinite(w).all() for w in problem.model.parameters())


def test_another_policy_is_refused():
    problem = Problem()
    with pytest.raises(TemperatureError, match="the temperature is a Constant: give a MetaTemperature"):
        meta_step(DistillationObjective(Constant(2.0)), problem.model, problem.train, problem.held, RATE)


# ---------------------------------------------------------------------------------------------------- what is held out


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(4000, 0.05, 200), (400, 0.05, 64), (100, 0.05, 50), (3, 0.5, 1)]
)
def test_how_many_are_held_out(count, share, expected):
    data = [{"id": i} for i in range(count)]
    train, held = hold_out(data, share)
    ids = [example["id"] for example in train]
    assert len(held) == expected
    assert len(train) == count  # as many steps as before
    assert set(ids) | {e["id"] for e in held} == set(range(count))
    assert not set(ids) & {e["id"] for e in held}
    assert max(ids.count(i) for i in set(ids)) <= 2
    assert hold_out(data, share) == (train, held)


def test_all_views_of_an_example_stay_together():
    views = SeededViews([{"id": str(i)} for i in range(20)], lambda e, _: e, views=3)
    train, held = hold_out(views, 0.05, views.views)
    assert (len(train), len(held)) == (60, 30)
    apart = [{example["id"].partition("#")[0] for example in part} for part in (train, held)]
    assert not apart[0] & apart[1]
    assert sorted(e["id"].partition("#")[2] for e in train) == sorted(["0", "1", "2"] * 20)


def test_what_cannot_be_counted_is_refused():
    for data in (iter([1, 2]), [{"id": 0}]):
        with pytest.raises(DataError, match="give a data set with a length, or another policy"):
            hold_out(data, 0.05)


def test_a_batch_depends_on_its_number_alone():
    one, two = (HeldOut(list(range(50)), 8, 3, lambda rows: {"rows": rows}) for _ in range(2))
    assert one.batch(7) == two.batch(7) != one.batch(8)
    assert len(set(one.batch(7)["rows"])) == 8
    assert len(HeldOut([1, 2], 8, 3, lambda rows: {"rows": rows}).batch(0)["rows"]) == 2
