"""Who is copied, and the temperatures that the best at the end lived through."""

import copy
import random

from hypothesis import given
from hypothesis import strategies as st

from setpoint.temperature import Step
from setpoint.tuning.evolution import FACTORS, Life, as_steps, live_on, select, told

LOSSES = st.lists(st.floats(0, 10) | st.just(float("inf")), min_size=1, max_size=12)


@given(LOSSES, st.randoms(use_true_random=False))
def test_the_worst_quarter_goes_on_from_the_best_quarter(losses, draw):
    temperatures = [2.0 + i for i in range(len(losses))]
    moves = select(losses, temperatures, draw)
    count = max(1, round(len(losses) / 4)) if len(losses) > 1 else 0
    assert len({move.target for move in moves}) == len(moves) == count
    gone, copied = {move.target for move in moves}, {move.source for move in moves}
    assert not gone & copied
    for i, loss in enumerate(losses):
        if i not in gone:
            assert all(loss <= losses[target] for target in gone)
    assert all(losses[source] <= sorted(losses)[count - 1] for source in copied)
    for move in moves:
        wanted = [temperatures[move.source] * factor for factor in FACTORS]
        assert min(abs(move.temperature - one) / one for one in wanted) < 0.01


def test_the_same_random_numbers_make_the_same_moves():
    moves = [select([0.4, 0.3, 0.2, 0.1], [1.0] * 4, random.Random("7 3")) for _ in range(2)]
    assert moves[0] == moves[1]


@given(st.lists(LOSSES, min_size=9, max_size=9), st.integers(2, 8), st.randoms(use_true_random=False))
def test_a_life_is_what_a_student_has_been_through(rounds, size, draw):
    """By brute force: each student notes at which temperature it is trained, and copies take the notes along."""

    class Student:
        def __init__(self, number):
            self.founder, self.notes, self.temperature = number, [], 1.0 + number

        def train(self):
            self.notes.append(self.temperature)

    students = [Student(n) for n in range(size)]
    lives = [Life(n, (1.0 + n,)) for n in range(size)]
    for losses in rounds:
        for student in students:
            student.train()
        moves = select((losses * size)[:size], [student.temperature for student in students], draw)
        for source, target, temperature in moves:
            students[target] = copy.deepcopy(students[source])
            students[target].temperature = temperature
        lives = live_on(lives, moves)
    for student, life in zip(students, lives, strict=True):
        student.train()
        assert (student.founder, tuple(student.notes)) == life


@given(st.lists(st.sampled_from([1.0, 2.0, 3.2]), min_size=10, max_size=10), st.integers(10, 400))
def test_the_schedule_changes_where_the_flock_did(temperatures, steps):
    """At the step at which a part of the training begins, also where it cannot be cut into ten equal ones."""
    policy = Step(as_steps(temperatures))
    for step in range(steps):
        part = sum(step >= -(-number * steps // 10) for number in range(1, 10))
        assert policy.at(step / steps) == temperatures[part]


def test_equal_temperatures_are_told_once():
    assert told([4.0, 4.0, 3.2, 4.0, 4.0]) == "4 → 3.2 → 4"
