import copy

import pytest
from transformers import TrainingArguments

from setpoint.arguments import check_training, training_arguments
from setpoint.errors import RecipeError
from setpoint.recipe import TrainRecipe
from setpoint.recipe_file import parse_recipe


def arguments(metric=None, **fields):
    return training_arguments(TrainRecipe(**fields), "/tmp/out", seed=7, metric=metric)


def message(metric=None, section="train", **fields):
    with pytest.raises(RecipeError) as caught:
        training_arguments(TrainRecipe(**fields), "/tmp/out", seed=7, metric=metric, section=section)
    return str(caught.value)


def test_the_section_reaches_the_trainer():
    got = arguments(
        epochs=2.5, batch_size=8, learning_rate=3e-4, weight_decay=0.1, scheduler="cosine", optimizer="sgd",
        gradient_accumulation=4,
    )  # fmt: skip
    assert isinstance(got, TrainingArguments)
    assert got.output_dir == "/tmp/out"
    assert (got.num_train_epochs, got.per_device_train_batch_size, got.gradient_accumulation_steps) == (2.5, 8, 4)
    assert (got.learning_rate, got.weight_decay) == (3e-4, 0.1)
    assert (got.lr_scheduler_type.value, str(got.optim.value)) == ("cosine", "sgd")
    assert got.seed == 7
    assert (got.remove_unused_columns, got.report_to) == (False, [])
    assert (got.eval_strategy.value, got.save_strategy.value, got.save_total_limit) == ("no", "epoch", 2)


@pytest.mark.parametrize("share", [0.0, 0.06, 0.5])
def test_warmup_is_a_share_of_the_steps(share):
    assert arguments(warmup=share).get_warmup_steps(200) == 200 * share


@pytest.mark.parametrize("fields", [{"keep_best": True}, {"early_stopping": 2}])
def test_the_best_is_kept_by_the_validation_metric_where_asked(fields):
    got = arguments("f1", **fields)
    assert got.load_best_model_at_end
    assert (got.metric_for_best_model, got.greater_is_better, got.eval_strategy.value) == ("f1", True, "epoch")
    without = arguments(None, **fields)
    assert not without.load_best_model_at_end


def test_extra_arguments_come_last():
    got = arguments(learning_rate=1e-3, arguments={"learning_rate": "2e-3", "save_strategy": "no", "max_steps": 5})
    assert got.learning_rate == 2e-3
    assert got.save_strategy.value == "no"
    assert got.max_steps == 5


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"arguments": {"lerning_rate": 1}},
         "recipe field 'train.arguments.lerning_rate' is unknown: did you mean 'learning_rate'?"),
        ({"arguments": {"zzzz": 1}},
         "recipe field 'train.arguments.zzzz' is unknown: see the fields of transformers.TrainingArguments"),
        ({"arguments": {"learning_rate": "fast"}},
         "recipe field 'train.arguments.learning_rate' is 'fast': give a valid number"),
        ({"arguments": {"max_steps": "many"}},
         "recipe field 'train.arguments.max_steps' is 'many': give a valid integer"),
        ({"arguments": {"gradient_checkpointing": "maybe"}},
         "recipe field 'train.arguments.gradient_checkpointing' is 'maybe': give a valid boolean"),
        ({"arguments": {"gradient_accumulation_steps": 0}},
         "recipe field 'train.arguments.gradient_accumulation_steps' is 0: give a whole number, 1 or above"),
        ({"arguments": {"per_device_train_batch_size": 0}},
         "recipe field 'train.arguments.per_device_train_batch_size' is 0: give a whole number, 1 or above"),
        ({"arguments": {"num_train_epochs": -1}},
         "recipe field 'train.arguments.num_train_epochs' is -1: give a finite number above 0"),
        ({"arguments": {"train_sampling_strategy": "by_length"}},
         "recipe field 'train.arguments.train_sampling_strategy' is 'by_length': give one of random, sequential, "
         "group_by_length, batch_rebalance"),
        ({"scheduler": "linearr"}, "recipe field 'train.scheduler' is 'linearr': did you mean 'linear'?"),
        ({"scheduler": "zzz"}, "recipe field 'train.scheduler' is 'zzz': give one of linear, cosine, "
         "cosine_with_restarts, polynomial, constant, constant_with_warmup, inverse_sqrt, reduce_lr_on_plateau, "
         "cosine_with_min_lr, cosine_warmup_with_min_lr, warmup_stable_decay, greedy"),
        ({"optimizer": "adamw"}, "recipe field 'train.optimizer' is 'adamw': did you mean 'adamw_torch'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(fields, sentence):
    assert message(**fields) == sentence


def refused(field, value, text):
    """Whether a sentence says that this value of this field cannot work, and why."""
    start, end = (
        f"recipe field '{field}' is {value}, which cannot work here (",
        "): give another value, or what it needs",
    )
    return text.startswith(start) and text.endswith(end) and "\n" not in text and len(text) > len(start) + len(end)


@pytest.mark.parametrize(
    ("name", "value"),
    [("eval_strategy", "maybe"), ("report_to", "nothing_known"), ("report_to", "wandb"), ("report_to", "mlflow"),
     ("logging_steps", 0.0), ("fsdp", "zzz"), ("fsdp", "full_shard"), ("lr_scheduler_kwargs", "{"),
     ("deepspeed", "x.json"), ("dataloader_num_workers", -1), ("dataloader_prefetch_factor", 2), ("optim", "zzz"),
     ("optim", "lomo"), ("optim_args", "momentum"), ("adam_beta1", 2.0), ("seed", -1),
     ("torch_compile_backend", "zzz"), ("use_liger_kernel", True)],
)  # fmt: skip
def test_an_argument_that_cannot_work_here_is_named_before_any_training(name, value, capfd):
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    for others in ({}, {"max_steps": 3}):
        text = message(arguments={"max_grad_norm": 0.5, name: value} | others)
        assert refused(f"train.arguments.{name}", shown, text)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "optimizer", ["lomo", "galore_adamw", "adamw_8bit", "adamw_torch_4bit", "schedule_free_adamw", "grokadamw"]
)
def test_an_optimizer_whose_library_is_not_installed_is_named(optimizer):
    assert refused("train.optimizer", repr(optimizer), message(optimizer=optimizer))
    assert refused("teacher.train.optimizer", repr(optimizer), message(section="teacher.train", optimizer=optimizer,
                                                                        arguments={"max_steps": 3}))  # fmt: skip


@pytest.mark.parametrize("scheduler", ["cosine_with_min_lr", "warmup_stable_decay", "reduce_lr_on_plateau"])
def test_a_scheduler_that_lacks_what_it_needs_is_named(scheduler):
    assert refused("train.scheduler", repr(scheduler), message(scheduler=scheduler))


def test_a_scheduler_that_has_what_it_needs_is_taken():
    got = arguments(scheduler="cosine_with_min_lr", arguments={"lr_scheduler_kwargs": {"min_lr": 1e-6}})
    assert got.lr_scheduler_kwargs == {"min_lr": 1e-6}
    assert arguments("f1", keep_best=True, scheduler="reduce_lr_on_plateau").eval_strategy.value == "epoch"


def test_of_two_mistakes_one_is_named():
    text = message(scheduler="cosine_with_min_lr", optimizer="lomo", arguments={"fsdp": "full_shard"})
    assert refused("train.optimizer", "'lomo'", text)


@pytest.mark.parametrize(
    ("name", "value"),
    [("output_dir", "x"), ("remove_unused_columns", True), ("push_to_hub", True), ("hub_model_id", "a/b"),
     ("resume_from_checkpoint", "x"), ("do_train", True), ("label_smoothing_factor", 0.1), ("label_names", ["x"]),
     ("batch_eval_metrics", True), ("eval_do_concat_batches", False), ("prediction_loss_only", True)],
)  # fmt: skip
def test_an_argument_that_setpoint_owns_is_refused_with_the_reason(name, value):
    text = message(arguments={name: value})
    assert text.startswith(f"recipe field 'train.arguments.{name}' is ")
    assert ", which is not yours to set (" in text
    assert text.endswith("): remove it")


def test_an_argument_that_setpoint_owns_may_be_what_it_is_anyway():
    assert not arguments(arguments={"remove_unused_columns": False, "push_to_hub": False}).push_to_hub


def test_bf16_is_taken_wherever_torch_has_it():
    assert arguments(arguments={"bf16": True}).bf16


def test_callbacks_go_on_counting_when_a_run_resumes():
    assert arguments().restore_callback_states_from_checkpoint


RECIPE = {
    "name": "x",
    "task": "text-classification",
    "data": {"train": "train.csv", "test": "test.csv"},
    "teacher": {"model": "t", "pretrain": {"text": "a.txt"}, "train": {"keep_best": True}},
    "student": {"model": "s", "pretrain": {"text": "a.txt"}},
}


def test_a_recipe_whose_sections_can_all_train_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_training(parse_recipe(RECIPE))
    check_training(parse_recipe(RECIPE | {"teacher": {"model": "t"}, "student": {"model": "s"}}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["teacher.pretrain.train", "teacher.train", "student.pretrain.train", "train"])
def test_the_check_of_a_recipe_names_the_section(path):
    raw = copy.deepcopy(RECIPE)
    place = raw
    for section in path.split("."):
        place = place.setdefault(section, {})
    place["optimizer"] = "lomo"
    with pytest.raises(RecipeError) as caught:
        check_training(parse_recipe(raw))
    assert refused(f"{path}.optimizer", "'lomo'", str(caught.value))


def test_a_pretraining_has_no_validation():
    raw = copy.deepcopy(RECIPE)
    raw["student"]["pretrain"]["train"] = {"arguments": {"eval_strategy": "epoch"}}
    with pytest.raises(RecipeError) as caught:
        check_training(parse_recipe(raw))
    assert refused("student.pretrain.train.arguments.eval_strategy", "'epoch'", str(caught.value))


def test_the_sections_own_path_is_named():
    assert message(section="teacher.train", arguments={"sede": 1}).startswith(
        "recipe field 'teacher.train.arguments.sede' is unknown: did you mean 'seed'?"
    )
