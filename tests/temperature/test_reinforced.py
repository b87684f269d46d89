"""The agent of ITKD against plain Python, against a game whose answer is known, and against the traps of its source."""

import copy
import math
import statistics

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from transformers import TrainingArguments

from setpoint import DistillationObjective, DistillationTrainer, InstanceTemperature, temper
from setpoint.errors import TargetError, TemperatureError
from setpoint.temperature.reinforced import ROWS, advantages, clipped, log_density, observed


def batch(seed=0, n=6, classes=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    v, z = (2 * torch.randn(n, classes, dtype=torch.float64, generator=generator) for _ in range(2))
    return v.to(dtype), z.to(dtype), torch.randint(0, classes, (n,), generator=generator)


def same_state(a, b):
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(one == two and torch.equal(x, y) for (one, x), (two, y) in pairs)


# ---------------------------------------------------------------------------------------------------- the formulas


def test_the_density_is_that_of_a_normal_distribution_before_the_sigmoid():
    actions, mean = torch.randn(9, dtype=torch.float64), torch.rand(9, dtype=torch.float64) - 0.5
    found = log_density(actions, mean, torch.tensor(-0.7, dtype=torch.float64)).tolist()
    expected = [
        math.log(statistics.NormalDist(m, math.exp(-0.7)).pdf(a))
        for a, m in zip(actions.tolist(), mean.tolist(), strict=True)
    ]
    assert found == pytest.approx(expected, rel=1e-12)


def by_loops(values, rewards, following):
    """Every advantage as its own sum over the future, batches of different sizes; no recursion as in the code."""
    means = [sum(row) / len(row) for row in values] + [following]
    errors = [r + 0.99 * means[t + 1] - means[t] for t, r in enumerate(rewards)]
    return [
        [
            rewards[t] + 0.99 * means[t + 1] - value
            + sum((0.99 * 0.95) ** (later - t) * errors[later] for later in range(t + 1, len(rewards)))
            for value in row
        ]
        for t, row in enumerate(values)
    ]  # fmt: skip


def test_advantages_are_the_sums_over_the_future():
    sizes, generator = [3, 1, 4, 2], torch.Generator().manual_seed(1)
    present = torch.arange(4) < torch.tensor(sizes).unsqueeze(-1)
    values = torch.randn(4, 4, dtype=torch.float64, generator=generator)
    rewards = torch.randn(4, dtype=torch.float64, generator=generator)
    found = advantages(values, rewards, present, torch.tensor(0.3, dtype=torch.float64))
    rows = [row[:size] for row, size in zip(values.tolist(), sizes, strict=True)]
    for row, expected in zip(found.tolist(), by_loops(rows, rewards.tolist(), 0.3), strict=True):
        assert row[: len(expected)] == pytest.approx(expected, rel=1e-12)


def test_the_clipped_objective_has_its_closed_gradient():
    """d/dr of −min(e^r·A, clip(e^r)·A)/n is −e^r·A/n, but 0 where the ratio has gone where A wants it by the clip."""
    log_ratios = torch.tensor([0.1, 0.5, 0.5, -0.1, -0.5, -0.5], dtype=torch.float64, requires_grad=True)
    gains = torch.tensor([2.0, 2.0, -2.0, -3.0, 3.0, -3.0], dtype=torch.float64)
    loss = clipped(log_ratios, gains)
    loss.backward()
    ratio = [math.exp(r) for r in log_ratios.tolist()]
    counts = [True, False, True, True, True, False]
    expected = [-r * a / 6 if c else 0.0 for r, a, c in zip(ratio, gains.tolist(), counts, strict=True)]
    assert log_ratios.grad.tolist() == pytest.approx(expected, rel=1e-12)
    terms = [2 * ratio[0], 2 * 1.2, -2 * ratio[2], -3 * ratio[3], 3 * ratio[4], -3 * 0.8]
    assert float(loss.detach()) == pytest.approx(-sum(terms) / 6, rel=1e-12)
    huge = torch.tensor([1e4, -1e4], requires_grad=True)
    clipped(huge, torch.tensor([-1.0, 1.0])).backward()
    assert torch.isfinite(huge.grad).all()


def test_the_margin_is_the_top_probability_minus_the_second_not_the_second_smallest():
    z, v = torch.tensor([[0.5, 0.1, 0.4]]).log(), torch.tensor([[0.2, 0.7, 0.1]]).log()
    assert observed(v, z).tolist()[0] == pytest.approx([0.5, 0.7, 0.1], rel=1e-5)
    masked = torch.tensor([[1.0, -math.inf, -math.inf]])
    assert observed(masked, masked).tolist() == [[1.0, 1.0, 1.0]]
    assert observed(torch.zeros(1, 1), torch.zeros(1, 1)).tolist() == [[1.0, 1.0, 1.0]]


def test_its_adam_is_an_unbroken_adam():
    """Made anew at each update from buffers, it steps as one that was kept."""
    policy = InstanceTemperature()
    twin = copy.deepcopy(policy)
    kept = twin._adam()
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        fresh = policy._adam()
        for a, b in zip(policy.parameters(), twin.parameters(), strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        fresh.step()
        kept.step()
        policy.steps += 1
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), twin.parameters(), strict=True))


# ------------------------------------------------------------------------------------------------------- temperatures


def test_the_warm_up_has_a_constant_temperature_and_leaves_the_state_alone():
    v, z, y = batch()
    policy = InstanceTemperature()
    before = copy.deepcopy(policy)
    for progress in (0.0, 19 / 240):
        given = policy(v, z, y, progress)
        assert [float(x) for x in (given.teacher, given.student, given.scale)] == [4.0, 4.0, 16.0]
    assert same_state(policy, before)
    assert policy(v, z, y, 20 / 240).teacher.shape == (6, 1)


def test_a_temperature_is_the_sigmoid_of_the_action_and_eval_mode_takes_the_mean():
    v, z, y = batch()
    policy = InstanceTemperature(highest=8.0)
    states = observed(v, z)
    mean = torch.tanh(policy.actor(states))
    torch.manual_seed(5)
    drawn = policy(v, z, y, 0.5)
    torch.manual_seed(5)
    action = mean + math.exp(-0.5) * torch.randn(6).unsqueeze(-1)
    torch.testing.assert_close(drawn.teacher, 8 * torch.sigmoid(action))
    torch.testing.assert_close(drawn.scale, drawn.teacher.squeeze(-1) ** 2)
    before, random = copy.deepcopy(policy.eval()), torch.get_rng_state()
    torch.testing.assert_close(policy(v, z, y, 0.5).teacher, 8 * torch.sigmoid(mean))
    assert same_state(policy, before)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_any_width_are_taken_also_under_autocast(dtype):
    v, z, y = batch(dtype=dtype)
    policy = InstanceTemperature(every=1, warmup=0.0)
    plain = copy.deepcopy(policy)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(3):
            given = policy(v, z, y, 0.5)
    torch.manual_seed(0)
    for _ in range(3):
        plain(v, z, y, 0.5)
    assert same_state(policy, plain)
    assert given.teacher.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert int(policy.steps) > 0
    assert all(torch.isfinite(p).all() for p in policy.parameters())


def test_no_logits_and_no_action_give_a_temperature_that_is_none():
    worst = torch.tensor([0.0, 1e4, -1e4, -math.inf, 1e-30])
    generator = torch.Generator().manual_seed(2)
    policy = InstanceTemperature(every=2, warmup=0.0)
    for _ in range(9):
        v, z = (worst[torch.randint(5, (7, 3), generator=generator)] for _ in range(2))
        given = policy(v, z, torch.randint(-1, 3, (7,), generator=generator), 0.5)
        assert torch.isfinite(given.scale).all()
        assert bool((given.teacher > 0).all())
        assert bool((given.teacher <= 10).all())
    policy.actor[-1].bias.fill_(math.inf)
    policy.log_deviation.fill_(8.0)
    given = policy.train()(*batch(n=200), 0.5)
    assert float(given.teacher.min()) == pytest.approx(1e-3)
    assert float(given.teacher.max()) <= 10
    assert all(torch.isfinite(value).all() for name, value in policy.state_dict().items() if "actor" not in name)


# ---------------------------------------------------------------------------------------------------------- learning


def test_a_reward_is_the_rise_of_the_accuracy_up_to_the_next_call():
    policy = InstanceTemperature(warmup=0.0)
    z = 5 * torch.eye(4)
    right = torch.arange(4)
    for labels in (right.roll(1), right, torch.tensor([0, 1, -100, -100]), torch.tensor([0, 0, -100, 0]), right):
        policy(z, z, labels, 0.5)
    assert policy.rewards[:4].tolist() == pytest.approx([1.0, 0.0, 1 / 3 - 1, 2 / 3])
    assert int(policy.batches) == 5
    torch.testing.assert_close(policy.states[0, :4], observed(z, z))
    assert policy.rows.tolist()[:6] == [4, 4, 4, 4, 4, 0]


def test_a_batch_without_a_label_or_a_row_is_not_remembered():
    policy = InstanceTemperature(warmup=0.0)
    v, z, y = batch()
    policy(v, z, y, 0.5)
    before = copy.deepcopy(policy)
    assert policy(v, z, torch.full((6,), -100), 0.5).teacher.shape == (6, 1)
    assert policy(v[:0], z[:0], y[:0], 0.5).teacher.shape == (0, 1)
    assert same_state(policy, before)


def test_of_many_rows_evenly_spaced_ones_are_remembered():
    policy = InstanceTemperature(warmup=0.0)
    v, z, y = batch(n=4 * ROWS)
    policy(v, z, y, 0.5)
    assert torch.equal(policy.states[0], observed(v, z)[::4])


@pytest.mark.parametrize("direction", [1, -1])
def test_the_mean_temperature_goes_where_the_reward_is(monkeypatch, direction):
    """A game in which a batch is rewarded with its mean temperature, or with minus that."""
    policy = InstanceTemperature(every=32, warmup=0.0)
    v, z, y = batch(n=2)
    level, mean = torch.tensor(0.0), float(policy.eval()(v, z, y, 0.5).teacher.mean())
    monkeypatch.setattr(InstanceTemperature, "_accuracy", lambda *_: level.clone())
    policy.train()
    torch.manual_seed(0)
    for _ in range(32 * 12 + 1):
        level += direction * (policy(v, z, y, 0.5).teacher.mean() - 5) / 10
    moved = float(policy.eval()(v, z, y, 0.5).teacher.mean()) - mean
    assert direction * moved > 1.0


def test_the_agent_tells_rows_apart(monkeypatch):
    """A game in which sure rows should have a low temperature and unsure ones a high one."""
    policy = InstanceTemperature(every=32, warmup=0.0)
    z, y = torch.tensor([[6.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0])
    level = torch.tensor(0.0)
    monkeypatch.setattr(InstanceTemperature, "_accuracy", lambda *_: level.clone())
    torch.manual_seed(0)
    for _ in range(32 * 25 + 1):
        sure, unsure = policy(z, z, y, 0.5).teacher.flatten()
        level += (unsure - sure) / 10
    sure, unsure = policy.eval()(z, z, y, 0.5).teacher.flatten().tolist()
    assert unsure - sure > 1.0


def test_the_critic_comes_to_expect_the_reward_and_a_huge_one_is_clipped(monkeypatch):
    v, z, y = batch()
    level = torch.tensor(0.0)
    monkeypatch.setattr(InstanceTemperature, "_accuracy", lambda *_: level.clone())
    for gain, expected in ((0.1, 0.4), (1e4, 4.0)):
        policy = InstanceTemperature(every=8, warmup=0.0)
        policy.log_deviation.fill_(3.0)
        for _ in range(8 * 5 + 1):
            policy(v, z, y, 0.5)
            level += gain
        assert float(policy.critic(observed(v, z)).mean()) > expected
        assert float(policy.first_moments.norm()) <= math.sqrt(2) * 2 + 1e-6  # a mean of gradients of norm 2, twice
        assert float(policy.log_deviation) <= 1.0


def test_the_loss_does_not_reach_the_agent_and_no_optimiser_takes_it(tmp_path):
    v, z, y = batch()
    policy = InstanceTemperature(every=1, warmup=0.0)
    objective, z = DistillationObjective(policy), z.requires_grad_()
    for _ in range(3):
        objective(student_logits=z, teacher_logits=v, labels=y, progress=0.5).total.backward()
    given = policy(v, z, y, 0.5)
    assert not given.teacher.requires_grad
    assert not given.scale.requires_grad
    assert int(policy.steps) > 0
    assert all(p.grad is None and not p.requires_grad for p in policy.parameters())
    student = nn.Linear(2, 2)
    run = DistillationTrainer(
        model=student, objective=objective, args=TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    )
    own = {id(parameter) for parameter in policy.parameters()}
    taken = {id(parameter) for group in run.create_optimizer().param_groups for parameter in group["params"]}
    assert not own & taken
    assert taken == {id(parameter) for parameter in student.parameters()}


def test_a_restored_agent_goes_on_bit_for_bit():
    def go(policy, steps):
        return [policy(*batch(step, n=5), 0.5).teacher for step in steps]

    whole = InstanceTemperature(every=3, warmup=0.0)
    torch.manual_seed(1)
    expected = go(whole, range(12))
    for cut in (1, 5, 7):  # in the midst of a memory, and after one and two updates
        first, second = (InstanceTemperature(every=3, warmup=0.0) for _ in range(2))
        torch.manual_seed(1)
        found, random = go(first, range(cut)), torch.get_rng_state()
        go(second, range(20, 25))  # what it was before is overwritten
        second.load_state_dict(load(save(first.state_dict())))
        torch.set_rng_state(random)
        found += go(second, range(cut, 12))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert same_state(whole, second)


def test_making_one_draws_no_random_number_and_all_start_alike():
    before = torch.get_rng_state()
    assert same_state(InstanceTemperature(), InstanceTemperature())
    assert torch.equal(torch.get_rng_state(), before)


def test_wrong_arguments_and_missing_labels_are_named():
    v, z, _ = batch()
    with pytest.raises(TargetError, match="labels are missing for the temperature policy InstanceTemperature"):
        InstanceTemperature()(v, z)
    for wrong, name in (({"highest": 0.0}, "highest"), ({"start": -1.0}, "start"), ({"warmup": 2.0}, "warmup"),
                        ({"every": 0}, "every")):  # fmt: skip
        with pytest.raises(TemperatureError, match=f"{name} is "):
            InstanceTemperature(**wrong)
    assert repr(InstanceTemperature()).startswith(
        "InstanceTemperature(\n  highest=10, warmup=0.0833333, start=4, every=20"
    )


def test_a_student_is_trained_with_it():
    """Loss and state stay whole over a training with many updates, on a problem that the student learns."""
    torch.manual_seed(0)
    teacher, student = nn.Linear(6, 4), nn.Linear(6, 4)
    nn.init.normal_(teacher.weight, std=2.0)
    objective = DistillationObjective(InstanceTemperature(every=2), alpha=0.9)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for step in range(40):
        inputs = torch.randn(32, 6)
        with torch.no_grad():
            teacher_logits = teacher(inputs)
        loss = objective(student_logits=student(inputs), teacher_logits=teacher_logits,
                         labels=teacher_logits.argmax(-1), progress=step / 40)  # fmt: skip
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    inputs = torch.randn(512, 6)
    agreement = (temper(student(inputs), 1.0).argmax(-1) == teacher(inputs).argmax(-1)).float().mean()
    assert float(agreement) > 0.8
    assert int(objective.temperature.steps) > 0
