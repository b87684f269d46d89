"""The search on real digits with tiny networks: pausing changes nothing, crashes and company change nothing."""

import json
import os
import subprocess
from pathlib import Path

import optuna
import pytest
import torch
from safetensors.torch import load_file

from setpoint import pipeline
from setpoint.errors import DataError, LossError, RecipeError, RunError
from setpoint.recipe_file import load_recipe, parse_recipe
from setpoint.tuning import search
from setpoint.tuning.plan import SHORTEST
from worker import STUDENT, STUDY, command, die, end, start, written

BASE = {
    "name": "digits",
    "task": "image-classification",
    "data": {"dataset": "digits", "limit": 400},
    "teacher": {
        "model": {"kind": "config", "config": {"model_type": "setpoint-convnet", "widths": [8]}},
        "train": {"epochs": 4, "batch_size": 32, "learning_rate": 1e-2},
    },
    "student": {"model": {"kind": "config", "config": {"model_type": "setpoint-convnet", "widths": [4]}}},
    "temperature": 4,
    "targets": {"dtype": "float32"},
    "train": {"epochs": 3, "batch_size": 32, "learning_rate": 1e-2},
    "hard_baseline": False,
    "seeds": [0],
}
TUNE = {"search": {"temperature": [1, 2, 4, 8], "objective.alpha": [0.5, 0.9]}, "budget": "8 trials", "finalists": 2,
        "repeats": 2}  # fmt: skip


def raw(**tune):
    return BASE | {"tune": TUNE | tune}


def tune(folder, **fields):
    return pipeline.tune(parse_recipe(raw(**fields)), folder)


def storage(folder):
    return f"sqlite:///{folder}/tuning/study.sqlite"


def trials(url):
    [name] = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url).get_trials()


def what_was_measured(outcome):
    """All scores, without who measured them."""
    return sorted(
        (record.number, score.seed, score.steps, score.value, score.parts)
        for record in outcome.records
        for score in record.scores
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A search that nothing disturbed, and its folder."""
    folder = tmp_path_factory.mktemp("unbroken")
    return tune(folder), folder


def test_what_was_searched(unbroken):
    outcome, folder = unbroken
    assert (outcome.plan.sizes, outcome.plan.rungs, outcome.plan.full_steps) == ((8, 4, 2), (20, 20, 39), 39)
    by_number = {record.number: record for record in outcome.records}
    assert len(by_number) == 8
    at_rung = [sum((0, steps) in record.proxies for record in outcome.records) for steps in outcome.plan.rungs]
    assert at_rung == [8, 8, 2]  # two cuts after one training, which could not be shorter
    finalists = {n for n, record in by_number.items() if record.reached(0) == 39}
    assert 0 in finalists
    assert all(by_number[n].reached(1) == 39 for n in finalists)
    best = min((record for record in outcome.records if record.number != 0), key=lambda r: r.proxies[0, 20])
    assert best.reached(0) > 20  # the best of the first rung went on
    states = [trial.state.name for trial in trials(storage(folder))]
    assert sorted(states) == ["COMPLETE"] * 2 + ["PRUNED"] * 6
    assert not list((folder / "tuning").glob("candidate-*"))  # nothing is left of the dropped


def test_what_optuna_sees(unbroken):
    outcome, folder = unbroken
    found = trials(storage(folder))
    for trial, values in zip(found, outcome.candidates.values, strict=True):
        assert trial.params == values
    record = next(record for record in outcome.records if record.reached(0) == 39)
    trial = found[record.number]
    assert trial.intermediate_values == {s.steps: s.value for s in record.scores if s.seed == 0}
    last = [s.value for s in record.scores if s.steps == 39]
    assert trial.value == pytest.approx(sum(last) / len(last))


@pytest.mark.slow
def test_the_outcome_is_a_recipe_that_repeats_the_student_without_a_search(unbroken, tmp_path):
    """And the run's student, which goes on from where a finalist paused twice, is bit-equal to one never paused."""
    outcome, _ = unbroken
    summary = pipeline.run(parse_recipe(raw()), tmp_path / "tuned")
    text = (tmp_path / "tuned/tuned.yaml").read_text()
    assert text.startswith("# Found by setpoint tune: ")
    for sentence in outcome.verdict.sentences:
        assert sentence in " ".join(text.replace("\n#", "").split())
    repeated = load_recipe(tmp_path / "tuned/tuned.yaml")
    assert repeated.tune is None
    assert repeated == outcome.recipe
    again = pipeline.run(repeated, tmp_path / "again")
    one, two = (load_file(tmp_path / f"{run}/student/seed-0/model.safetensors") for run in ("tuned", "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert summary["student"]["metrics"] == again["student"]["metrics"]
    # It did go on: the log of its stage begins after the pause.
    log = json.loads((tmp_path / "tuned/stages/student-seed-0.json").read_text())["result"]["log"]
    assert log[-1]["step"] == 39
    assert summary["tuning"]["sentences"] == list(outcome.verdict.sentences)
    assert outcome.verdict.sentences[0] in (tmp_path / "tuned/report.html").read_text().replace("\xa0", " ")


def test_a_second_call_trains_nothing(unbroken, monkeypatch):
    outcome, folder = unbroken

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(search.student, "train_to", never)
    again = tune(folder)
    assert what_was_measured(again) == what_was_measured(outcome)
    assert again.verdict == outcome.verdict


@pytest.mark.slow
def test_another_recipe_is_another_study(unbroken, tmp_path, monkeypatch):
    _, folder = unbroken
    asked = []
    real = search.study_name
    monkeypatch.setattr(search, "study_name", lambda job: asked.append(real(job)) or asked[-1])
    tune(folder)
    tune(tmp_path, finalists=1, repeats=1, search={"temperature": [1]}, budget="2 trials")
    assert asked[0] != asked[1]


@pytest.mark.slow
def test_a_candidate_that_diverges_is_out_and_said(tmp_path, monkeypatch):
    real = search.student.train_to

    def train_to(bench, recipe, number, *rest):
        if number == 3:
            raise LossError("the loss is nan", "lower it", 0)
        return real(bench, recipe, number, *rest)

    monkeypatch.setattr(search.student, "train_to", train_to)
    outcome = tune(tmp_path)
    assert outcome.verdict.dropped == (3,)
    assert [r.failed for r in outcome.records] == [n == 3 for n in range(8)]
    assert trials(storage(tmp_path))[3].user_attrs["error"] == "the loss is nan: lower it"


@pytest.mark.slow
def test_a_temperature_learned_in_the_run_is_a_candidate_like_any_other(tmp_path):
    search_of = {"temperature": [2, 4, {"policy": "meta", "every": 2, "rate": 0.1}]}
    outcome = tune(tmp_path, search=search_of, budget="3 trials", candidates=3)
    number = next(n for n, r in enumerate(outcome.candidates.recipes) if r.temperature.policy == "meta")
    record = next(record for record in outcome.records if record.number == number)
    assert not record.failed
    assert record.reached(0) >= 20
    assert len({score.value for r in outcome.records for score in r.scores}) > 1
    assert outcome.candidates.values[number]["temperature"] == "meta (every: 2, rate: 0.1)"
    assert outcome.verdict.sentences


@pytest.mark.slow
def test_a_step_has_its_price_though_another_worker_took_the_first_ones(tmp_path, monkeypatch):
    """One that died after it had timed its steps, and before it could tell."""

    class Died(Exception):
        pass

    def die(*_):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(search.SharedStudy, "set_plan", die)
        with pytest.raises(Died):
            tune(tmp_path)
    clocks = []
    real = search.student.train_to

    def train_to(bench, recipe, number, seed, steps, on_step):
        return real(bench, recipe, number, seed, steps, lambda step: (clocks.append(step), on_step(step)))

    monkeypatch.setattr(search.student, "train_to", train_to)
    tune(tmp_path)
    assert clocks[:SHORTEST] == list(range(1, SHORTEST + 1))


@pytest.mark.slow
def test_steps_are_counted_as_the_trainer_counts_them(tmp_path):
    """With fixed views an epoch has each example so many times."""
    recipe = raw() | {"data": BASE["data"] | {"augment": {"kind": "shift"}, "views": 2}}
    outcome = pipeline.tune(parse_recipe(recipe), tmp_path)
    assert outcome.plan.full_steps == 75  # 800 views in batches of 32, three times
    summary = pipeline.run(parse_recipe(recipe), tmp_path)
    log = json.loads((tmp_path / "stages/student-seed-0.json").read_text())["result"]["log"]
    assert log[-1]["step"] == outcome.plan.full_steps
    assert summary["student"]["metrics"]


@pytest.mark.slow
def test_optuna_has_a_name_for_every_choice(tmp_path):
    outcome = tune(tmp_path, search={"temperature": [2, {"policy": "lskd"}]}, budget="3 trials")
    assert [trial.params for trial in trials(storage(tmp_path))] == [
        {"temperature": str(values["temperature"])} for values in outcome.candidates.values
    ]


@pytest.mark.slow
def test_the_price_is_kept(tmp_path):
    """A budget in seconds: what was planned from the first steps is what is spent, the final student included."""
    outcome = tune(tmp_path, budget="60s")
    assert sum(outcome.seconds[part] for part in ("targets", "search", "student")) <= 60.5
    assert outcome.plan.rungs[-1] <= 39


@pytest.mark.slow
def test_without_a_budget_a_search_that_one_run_cannot_pay_says_its_price(tmp_path):
    fields = {key: value for key, value in TUNE.items() if key != "budget"}
    with pytest.warns(UserWarning, match="buy no search: it takes"):
        outcome = pipeline.tune(parse_recipe(BASE | {"tune": fields}), tmp_path)
    assert outcome.plan.rungs[-1] == 20  # a quarter of the training would be shorter than tells anything


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"metric": "f2"}, RecipeError,
         "tune.metric is 'f2', which image-classification does not produce: give one of accuracy, f1, mcc"),
        ({"search": {"objective.alpha": [2.0]}}, RecipeError,
         "recipe field 'objective.alpha' is 2.0: give a number from 0 to 1"),
        ({"budget": "0.01x"}, RecipeError, "tune.budget leaves nothing for a search"),
        ({"storage": "postgres://me:secret@nowhere:1/x"}, RunError, "tune.storage 'postgres://me@nowhere:1/x'"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_sentence(tmp_path, fields, error, message):
    with pytest.raises(error) as caught:
        tune(tmp_path, **fields)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_validation_split_that_tells_nothing_is_refused_with_the_number_needed(tmp_path):
    recipe = raw() | {"data": {"dataset": "digits", "limit": 24}}
    with pytest.raises(DataError) as caught:
        pipeline.tune(parse_recipe(recipe), tmp_path)
    assert str(caught.value) == (
        "the validation split has 24 examples, which tell no difference below 16 points: give at least 39; 961 would"
        " tell 2 points"
    )
    assert not (tmp_path / "teacher").exists()  # before anything is trained


# ------------------------------------------------------------------------------------------------ crashes, company


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "calls"),
    [(STUDENT + "train_to", 3), (STUDENT + "score", 6), (STUDY + "report", 9), (STUDY + "ask", 5), (STUDY + "drop", 2)],
)  # fmt: skip
def test_a_search_killed_at_any_moment_goes_on_without_losing_or_doubling_a_trial(tmp_path, unbroken, moment, calls):
    recipe = written(tmp_path, raw())
    die(start(recipe, tmp_path / "run", moment, calls))
    sentence = end(start(recipe, tmp_path / "run"))
    whole, _ = unbroken
    assert sentence == whole.verdict.sentence
    assert len(trials(storage(tmp_path / "run"))) == 8
    again = tune(tmp_path / "run")
    assert what_was_measured(again) == what_was_measured(whole)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["one folder", "folders of their own"])
def test_two_workers_share_a_search(tmp_path, unbroken, place):
    recipe = written(tmp_path, raw(**({} if place == "one folder" else {"storage": f"sqlite:///{tmp_path}/study.db"})))
    folders = [tmp_path / "run"] * 2 if place == "one folder" else [tmp_path / "a", tmp_path / "b"]
    sentences = [end(process) for process in [start(recipe, folder) for folder in folders]]
    whole, _ = unbroken
    assert sentences == [whole.verdict.sentence] * 2
    url = storage(tmp_path / "run") if place == "one folder" else f"sqlite:///{tmp_path}/study.db"
    found = trials(url)
    assert len([trial for trial in found if trial.user_attrs.get("worker")]) == 8
    assert len({trial.user_attrs["worker"] for trial in found if "worker" in trial.user_attrs}) == 2
    entries = [(t.number, e["seed"], e["steps"]) for t in found for e in t.user_attrs.get("scores", [])]
    assert len(entries) == len(set(entries)) == len(what_was_measured(whole))
    assert {tuple(t.params.values()) for t in found if "worker" in t.user_attrs} == {
        tuple(values.values()) for values in whole.candidates.values
    }


@pytest.mark.slow
def test_a_worker_that_starts_at_the_same_moment_keeps_the_candidate_it_took(tmp_path, monkeypatch):
    """And what two take beyond the plan is no candidate of it."""
    real = search.SharedStudy.ask

    def beside_another(self, total):
        taken = len(trials(storage(tmp_path / "run")))
        if taken == 0:  # two see an empty study
            assert real(self, 1) == 0
            return real(self, 2)
        number = real(self, total)
        return real(self, total + 1) if number == total - 1 else number  # two see that one is left

    monkeypatch.setattr(search.SharedStudy, "ask", beside_another)
    some = tune(tmp_path / "run", budget="6 trials")
    monkeypatch.undo()
    assert what_was_measured(some) == what_was_measured(tune(tmp_path / "alone", budget="6 trials"))
    assert "failed" not in some.verdict.sentence
    states = [trial.state.name for trial in trials(storage(tmp_path / "run"))]
    assert len(states) == 7
    assert states[6] == "PRUNED"


@pytest.mark.slow
def test_ctrl_c_gives_the_best_so_far_and_the_same_command_goes_on(tmp_path):
    tuning = ["tune", written(tmp_path, raw()), "--run-dir", tmp_path / "run"]
    stopped = command(*tuning, ctrl_c=(STUDY + "report", 10))
    assert stopped.returncode == 130
    last = stopped.stderr.strip().splitlines()[-1]
    assert last.startswith("setpoint: stopped; best so far T = ")
    assert last.endswith("the same command continues where it stopped")
    assert "Traceback" not in stopped.stderr
    done = command(*tuning)
    assert done.returncode == 0, done.stderr
    assert "tuned.yaml" in done.stdout


POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.mark.slow
@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL is not installed")
def test_two_workers_on_one_postgresql(tmp_path, unbroken):
    """As docs/how-to.md shows it, with a server of our own that is started for the test and stopped after it."""
    commands = POSTGRES[-1].parent
    data = tmp_path / "database"
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root
    data.mkdir()
    if as_user:
        tmp_path.chmod(0o755)
        for folder in [p for p in tmp_path.parents if p.stat().st_uid == os.geteuid() and "pytest" in str(p)]:
            folder.chmod(folder.stat().st_mode | 0o011)
        subprocess.run(["chown", "postgres", str(data)], check=True)
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "timeout": 120}
    subprocess.run([*as_user, commands / "initdb", "-D", data, "-U", "setpoint", "-A", "trust"], **quiet)
    port = 50000 + os.getpid() % 10000
    options = f"-p {port} -c unix_socket_directories='' -c listen_addresses=127.0.0.1"
    subprocess.run(
        [*as_user, commands / "pg_ctl", "-D", data, "-o", options, "-w", "start", "-l", data / "log"], **quiet
    )
    try:
        url = f"postgresql+psycopg://setpoint@127.0.0.1:{port}/postgres"
        recipe = written(tmp_path, raw(storage=url))
        sentences = [end(process) for process in [start(recipe, tmp_path / place) for place in "ab"]]
        whole, _ = unbroken
        assert sentences == [whole.verdict.sentence] * 2
        found = trials(url)
        assert len({trial.user_attrs["worker"] for trial in found if "worker" in trial.user_attrs}) == 2
        entries = [(t.number, e["seed"], e["steps"]) for t in found for e in t.user_attrs.get("scores", [])]
        assert len(entries) == len(set(entries)) == len(what_was_measured(whole))
    finally:
        subprocess.run([*as_user, commands / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)
