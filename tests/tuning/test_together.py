"""A search that trains its candidates together: the same scores, the same drops, through kills and in company."""

import json
import signal
from dataclasses import replace

import optuna
import pytest
import torch
import yaml

from setpoint import pipeline
from setpoint.errors import LossError, RecipeError
from setpoint.recipe_file import parse_recipe
from setpoint.run_folder import RunFolder
from setpoint.stages import advance_student
from setpoint.tuning import flock, student
from setpoint.tuning.candidates import apply
from setpoint.tuning.cohort import Cohort
from setpoint.tuning.evolution import as_steps
from setpoint.tuning.population import Population
from setpoint.vision import SmallConvNetForImageClassification
from worker import POPULATION, STUDENT, STUDY, command, die, end, start, written


def convnet(*widths):
    return {"model": {"kind": "config", "config": {"model_type": "setpoint-convnet", "widths": widths}}}


BASE = {
    "name": "digits",
    "task": "image-classification",
    "data": {"dataset": "digits", "limit": 400},
    "teacher": convnet(16, 32) | {"train": {"epochs": 10, "batch_size": 32, "learning_rate": 2e-2}},
    "student": convnet(8),
    "temperature": 4,
    "targets": {"dtype": "float32"},
    "train": {"epochs": 3, "batch_size": 32, "learning_rate": 2e-2, "weight_decay": 0.1},
    "hard_baseline": False,
    "seeds": [0],
}
TUNE = {"search": {"temperature": [1, 2, 4, 8], "objective.alpha": [0.5, 0.9]}, "budget": "6 trials", "finalists": 2,
        "repeats": 2}  # fmt: skip
PARTS = 2
CLOSE = {"rel": 1e-4, "abs": 1e-6}


@pytest.fixture(autouse=True, scope="module")
def few_parts():
    """Ten parts of the validation split are ten times their price."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student, "PARTS", PARTS)
        yield


def raw(**fields):
    return BASE | {"tune": TUNE | {"population": True} | fields}


def tune(folder, **fields):
    return pipeline.tune(parse_recipe(raw(**fields)), folder)


def what_was_measured(outcome):
    return {
        (record.number, score.seed, score.steps): (score.value, *score.parts, record.proxies[score.seed, score.steps])
        for record in outcome.records
        for score in record.scores
    }


def trials(folder):
    url = f"sqlite:///{folder}/tuning/study.sqlite"
    [name] = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url).get_trials()


def assert_the_same(one, other):
    ours, theirs = what_was_measured(one), what_was_measured(other)
    assert ours.keys() == theirs.keys()  # who was dropped where, too
    for key, values in ours.items():
        assert values == pytest.approx(theirs[key], **CLOSE), key


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that nothing disturbed, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return tune(folder), folder


def test_scores_and_drops_are_those_of_one_after_another(whole, tmp_path):
    outcome, folder = whole
    alone = tune(tmp_path, population=False)
    assert_the_same(outcome, alone)
    assert (outcome.plan, outcome.recipe) == (alone.plan, alone.recipe)
    assert outcome.plan.sizes == (6, 3, 2)
    assert len({round(values[-1], 5) for values in what_was_measured(outcome).values()}) == len(
        what_was_measured(outcome)
    )  # every student is another
    assert [t.state.name for t in trials(folder)] == [t.state.name for t in trials(tmp_path)]
    assert alone.how is None


def test_the_outcome_says_how(whole):
    outcome, folder = whole
    assert outcome.how.startswith("6 students learned from the same batches: ")
    assert json.loads((folder / "tuning.json").read_text())["how"] == outcome.how
    assert not list((folder / "tuning").glob("population-*"))


def test_the_run_trains_its_student_from_the_start_and_reports_how(whole):
    outcome, folder = whole
    summary = pipeline.run(parse_recipe(raw()), folder)
    assert summary["tuning"] == {"sentences": list(outcome.verdict.sentences), "how": outcome.how}
    [first, *_] = json.loads((folder / "stages/student-seed-0.json").read_text())["result"]["log"]
    assert first["step"] == 10
    assert outcome.how in (folder / "report.html").read_text().replace("\xa0", " ")


def test_the_command_line_says_how(whole):
    _, folder = whole
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(raw(population=False)))
    done = command("tune", recipe, "--set", "tune.population=true", "--run-dir", folder)
    assert done.returncode == 0, done.stderr
    assert "students learned from the same batches" in " ".join(done.stdout.split())


def test_a_second_call_trains_nothing(whole, monkeypatch):
    outcome, folder = whole
    monkeypatch.setattr(Population, "step", None)
    assert what_was_measured(tune(folder)) == what_was_measured(outcome)


@pytest.mark.parametrize("order", ["random", "group_by_length"])
def test_a_cohort_sees_the_batches_of_a_trainer_and_ends_where_it_ends(tmp_path, order):
    """Saved in the middle of an epoch and made anew: a candidate it keeps is the student that a Trainer makes."""
    recipe = parse_recipe(raw() | {"train": BASE["train"] | {"arguments": {"train_sampling_strategy": order}}})
    seen = []
    with RunFolder(tmp_path) as folder:
        job, teacher, targets = pipeline._prepare(recipe, folder, False)

        def watched(batch):
            if batch["example_id"][0].startswith("train"):
                seen.append(batch["example_id"])
            return targets(batch)

        bench = student.Bench(job, teacher, watched, "accuracy")
        softness = {"policy": "softness", "effective_classes": 1.5, "per": "dataset"}  # fitted to the teacher's logits
        recipes = {3: recipe, 5: apply(recipe, {"temperature": softness})}
        ends = {}
        for number, one in recipes.items():
            trainer, _ = advance_student(replace(job, recipe=one), teacher, watched, 7, tmp_path / f"{number}", "")
            ends[number] = trainer.model.state_dict()
        alone, seen[:] = seen[-39:], []
        steps = []
        for until, numbers in ((20, {3, 5}), (39, {5})):
            cohort = Cohort(bench, recipes, 7, 39, tmp_path / "cohort")
            cohort.train_to(numbers, until, steps.append)
    assert seen == alone
    assert steps == [2] * 20 + [1] * 19
    for name, weight in cohort.population.state_dict(0).items():
        torch.testing.assert_close(weight, ends[5][name], rtol=0, atol=1e-3)
    assert not torch.allclose(ends[3]["classifier.weight"], ends[5]["classifier.weight"], atol=1e-2)


def failing(monkeypatch, place):
    """The objective of the candidate at a place gives no number in the fifth step."""
    from setpoint.tuning import cohort

    real, made = cohort.make_objective, []

    def make(recipe):
        objective = real(recipe)
        if len(made) == place:

            def refuse(module, args, given):
                if given["progress"] > 4 / 39:
                    raise LossError("the loss is nan", "lower it", 0)

            objective.register_forward_pre_hook(refuse, with_kwargs=True)
        made.append(recipe)
        return objective

    monkeypatch.setattr(cohort, "make_objective", make)


@pytest.mark.slow
def test_a_candidate_that_diverges_is_out_and_the_others_are_as_before(whole, tmp_path, monkeypatch):
    outcome, _ = whole
    failing(monkeypatch, 3)
    some = tune(tmp_path)
    assert some.verdict.dropped == (3,)
    assert [record.failed for record in some.records] == [n == 3 for n in range(6)]
    assert "the loss is nan" in trials(tmp_path)[3].user_attrs["error"]
    before, after = what_was_measured(outcome), what_was_measured(some)
    for n in (0, 1, 2, 4, 5):
        assert after[n, 0, 20] == pytest.approx(before[n, 0, 20], **CLOSE)


@pytest.mark.slow
def test_the_recipe_as_it_stands_must_be_trainable(tmp_path, monkeypatch):
    failing(monkeypatch, 0)
    with pytest.raises(LossError, match="student 0 at step 5: the loss is nan"):
        tune(tmp_path)


@pytest.mark.slow
def test_a_model_that_vmap_cannot_do_goes_one_by_one_and_says_so(whole, tmp_path, monkeypatch):
    real = SmallConvNetForImageClassification.forward

    def forward(self, pixel_values, labels=None):
        return real(self, pixel_values, labels) if self.classifier.bias.sum() > -100 else None

    monkeypatch.setattr(SmallConvNetForImageClassification, "forward", forward)
    outcome = tune(tmp_path)
    assert outcome.how.startswith("6 students learned from the same batches: one by one (vmap: RuntimeError: ")
    assert_the_same(outcome, whole[0])


@pytest.mark.slow
def test_a_batch_that_vmap_cannot_do_turns_all_that_follow_and_is_told(whole, tmp_path, monkeypatch):
    real = SmallConvNetForImageClassification.forward
    ways = []

    def forward(self, pixel_values, labels=None):
        short = len(pixel_values) <= 16  # the last of an epoch
        return real(self, pixel_values, labels) if not short or self.classifier.bias.sum() > -100 else None

    def choose(stack, inputs, mode):
        ways.append(mode)
        return f"{'vmap' if mode == 'auto' else mode} (as the test wants)"

    monkeypatch.setattr(SmallConvNetForImageClassification, "forward", forward)
    monkeypatch.setattr("setpoint.tuning.population.choose", choose)
    outcome = tune(tmp_path)
    assert "batches: one by one (from step 12 on, vmap: RuntimeError: " in outcome.how
    assert ways == ["auto", "one by one"]
    assert_the_same(outcome, whole[0])


@pytest.mark.slow
def test_a_population_of_another_search_is_not_taken_up(whole, tmp_path):
    """The study is lost, the students are not: they are further than a new search has come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("setpoint.tuning.search.hand_over", lambda *_: None)
        tune(tmp_path)
    assert list((tmp_path / "tuning").glob("population-*"))
    (tmp_path / "tuning/study.sqlite").unlink()
    assert_the_same(tune(tmp_path), whole[0])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (raw(search={"train.learning_rate": [1e-2, 1e-3]}),
         "tune.search names 'train.learning_rate', in which they cannot differ: leave 'train.learning_rate' out"),
        (raw(search={"student.dropout": [0.1, 0.2]}), "tune.search names 'student.dropout', in which they cannot"),
        (raw(search={"temperature": [2, {"policy": "meta"}]}), "temperature.policy is meta, which takes steps of its"),
        (raw(search={"objective.alpha": [0.5]}) | {"temperature": "meta"}, "temperature.policy is meta"),
        (raw() | {"train": BASE["train"] | {"gradient_accumulation": 2}},
         "train.gradient_accumulation is 2, for they take whole batches: give 1"),
        (raw() | {"train": BASE["train"] | {"early_stopping": 3}}, "train.early_stopping is 3, for they end together"),
        (raw() | {"train": BASE["train"] | {"keep_best": True}}, "train.keep_best is true, for they keep no checkpoi"),
        (raw() | {"train": BASE["train"] | {"optimizer": "adafactor"}},
         "a population cannot have the optimizer 'adafactor': give one of adamw_torch, "),
        (raw() | {"train": BASE["train"] | {"scheduler": "reduce_lr_on_plateau",
                                            "arguments": {"eval_strategy": "epoch"}}},
         "a population cannot have the scheduler 'reduce_lr_on_plateau': give one that goes by the step alone"),
    ],
)  # fmt: skip
def test_what_students_cannot_share_is_refused_before_anything_is_trained(tmp_path, recipe, message):
    with pytest.raises(RecipeError) as caught:
        pipeline.tune(parse_recipe(recipe), tmp_path)
    assert message in str(caught.value)
    assert not (tmp_path / "teacher").exists()
    unrestricted = recipe | {"tune": recipe["tune"] | {"population": False}}
    with RunFolder(tmp_path) as folder:
        pipeline.check_search(pipeline.open_job(parse_recipe(unrestricted), folder))


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("setpoint.processes.together", lambda: True)
    with pytest.raises(RecipeError, match="together while there are several processes: start one"):
        tune(tmp_path)


# ------------------------------------------------------------------------------------------------ evolution


def evolve(folder, **fields):
    return tune(folder, **{"population": False, "evolve": True} | fields)


def attributes(folder):
    url = f"sqlite:///{folder}/tuning/study.sqlite"
    [name] = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url).user_attrs


@pytest.fixture(scope="module")
def evolved(tmp_path_factory):
    """A search with a flock, its folder, and what the flock's students ended with."""
    folder, ends = tmp_path_factory.mktemp("evolved"), []
    real = flock.evolve

    def watched(cohort, recipes, *rest):
        life = real(cohort, recipes, *rest)
        ends.append({n: cohort.loss(n, None) for n in recipes})
        return life

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flock, "evolve", watched)
        outcome = evolve(folder)
    [losses] = ends
    return outcome, folder, losses


def test_the_evolved_candidate_repeats_the_best_of_the_flock(evolved):
    """Trained from its start by its schedule, it is the student that many copies made."""
    outcome, _, losses = evolved
    last = outcome.records[-1]
    assert (last.number, outcome.plan.sizes, outcome.plan.flock) == (6, (7, 4, 3), 6)
    assert len(outcome.candidates.recipes[-1].temperature.steps) > 1
    assert last.proxies[0, 39] == pytest.approx(min(losses.values()), **CLOSE)
    assert last.reached(0) == last.reached(1) == 39
    others = [record.proxies[0, 39] for record in outcome.records[:-1] if (0, 39) in record.proxies]
    assert min(abs(one - last.proxies[0, 39]) for one in others) > 1e-4


@pytest.mark.slow
def test_what_was_evolved_is_a_recipe_and_is_told(evolved, tmp_path):
    outcome, folder, _ = evolved
    found = attributes(folder)["evolved"]
    recipe, values = outcome.candidates.recipes[-1], outcome.candidates.values[-1]
    temperatures = found["temperatures"]
    assert recipe.temperature.steps == as_steps(temperatures)
    assert recipe.objective == outcome.candidates.recipes[found["founder"]].objective
    assert values["temperature"].endswith(" (evolved)")
    assert values["objective.alpha"] == recipe.objective.alpha
    told = json.loads((folder / "tuning.json").read_text())
    assert told["candidates"][-1]["values"] == values
    assert " A flock evolved T = " in told["how"]
    assert all(isinstance(point["at"], float) for point in told["verdict"]["curve"])
    [*_, trial] = trials(folder)
    assert (trial.params, trial.user_attrs["temperature"]) == ({}, values["temperature"])
    summary = pipeline.run(recipe, tmp_path)
    assert summary["temperature"].startswith("step(steps={0.0: ")
    pipeline.run(parse_recipe(raw(population=False, evolve=True)), folder)
    assert " A flock evolved T = " in (folder / "report.html").read_text().replace("\xa0", " ")


def test_a_flock_leaves_the_other_candidates_alone(evolved, whole):
    with_flock, without = what_was_measured(evolved[0]), what_was_measured(whole[0])
    for key in with_flock.keys() & without.keys():
        assert with_flock[key] == pytest.approx(without[key], **CLOSE) or key[0] == 6


@pytest.mark.slow
def test_from_an_absurd_temperature_a_flock_goes_far_down(tmp_path):
    learns = {"train": BASE["train"] | {"epochs": 10}, "student": convnet(8, 8), "temperature": 64,
              "objective": {"alpha": 1.0}}  # fmt: skip
    tuned = {"search": {"temperature": [1, 2, 4, 8, 16, 32, 64]}, "budget": "7 trials"}
    outcome = pipeline.tune(parse_recipe(raw(population=False, evolve=True, **tuned) | learns), tmp_path)
    temperatures = attributes(tmp_path)["evolved"]["temperatures"]
    assert max(temperatures) <= 4
    assert temperatures[-1] < 1  # below all it began with
    last = outcome.records[-1]
    assert outcome.verdict.best == last.number
    for seed in (0, 1):
        assert last.proxies[seed, 130] < outcome.records[0].proxies[seed, 130] - 0.2


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (raw(search={"objective.alpha": [0.5]}), "tune.evolve is true while tune.search does not name temperature"),
        (raw() | {"temperature": {"teacher": 4, "student": 2}},
         "tune.evolve is true while temperature is constant(teacher=4.0, student=2.0), not one number"),
        (raw() | {"temperature": {"policy": "linear", "start": 8, "end": 1}},
         "tune.evolve is true while temperature is linear(start=8.0, end=1.0), not one number"),
        (raw(population=False) | {"train": BASE["train"] | {"keep_best": True}},
         "tune.evolve trains students together while train.keep_best is true"),
    ],
)  # fmt: skip
def test_what_no_flock_can_evolve_is_refused(tmp_path, recipe, message):
    recipe["tune"] = recipe["tune"] | {"evolve": True}
    with pytest.raises(RecipeError) as caught:
        pipeline.tune(parse_recipe(recipe), tmp_path)
    assert message in str(caught.value)
    assert not (tmp_path / "teacher").exists()


# ------------------------------------------------------------------------------------------------ crashes, company


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "calls"),
    [(POPULATION + "step", 18), (POPULATION + "save", 3), (STUDENT + "score", 5), (STUDY + "report", 9),
     (STUDY + "ask", 4), (STUDY + "drop", 2), (STUDY + "finish", 2)],
)  # fmt: skip
def test_a_search_killed_at_any_moment_goes_on_without_losing_or_doubling_a_trial(tmp_path, whole, moment, calls):
    recipe = written(tmp_path, raw())
    die(start(recipe, tmp_path / "run", moment, calls, PARTS))
    assert end(start(recipe, tmp_path / "run", parts=PARTS)) == whole[0].verdict.sentence
    assert len(trials(tmp_path / "run")) == 6
    entries = [(t.number, e["seed"], e["steps"]) for t in trials(tmp_path / "run") for e in t.user_attrs["scores"]]
    assert len(entries) == len(set(entries))
    assert_the_same(tune(tmp_path / "run"), whole[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "calls"),
    [(POPULATION + "step", 30), (POPULATION + "save", 4), (POPULATION + "copy", 5), (STUDY + "describe", 12)],
)  # fmt: skip
def test_a_flock_that_is_killed_evolves_the_same_schedule(tmp_path, evolved, moment, calls):
    whole, folder, _ = evolved
    recipe = written(tmp_path, raw(population=False, evolve=True))
    die(start(recipe, tmp_path / "run", moment, calls, PARTS))
    assert "evolved" not in attributes(tmp_path / "run")
    assert end(start(recipe, tmp_path / "run", parts=PARTS)) == whole.verdict.sentence
    for name in ("rounds", "evolved"):
        assert attributes(tmp_path / "run")[name] == attributes(folder)[name]
    assert_the_same(evolve(tmp_path / "run"), whole)
    assert len(trials(tmp_path / "run")) == 7


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 45])  # at the 45th step the second seed has begun
def test_of_two_workers_one_trains_and_the_other_goes_on_should_it_die(tmp_path, whole, calls):
    recipe = written(tmp_path, raw())
    first, second = (start(recipe, tmp_path / "run", POPULATION + "step", calls, PARTS) for _ in range(2))
    ends = [worker.wait() for worker in (first, second)]
    codes = sorted(code for code, _, _ in ends)
    assert codes == ([0, 0] if calls == 0 else [-signal.SIGKILL, 0]), [err[-2000:] for _, _, err in ends]
    sentences = {out.strip() for _, out, _ in ends if out}
    assert sentences == {whole[0].verdict.sentence}
    entries = [(t.number, e["seed"], e["steps"]) for t in trials(tmp_path / "run") for e in t.user_attrs["scores"]]
    assert len(entries) == len(set(entries)) == len(what_was_measured(whole[0]))
    assert len(trials(tmp_path / "run")) == 6
