import pytest
from transformers import TrainingArguments

from setpoint.arguments import training_arguments
from setpoint.errors import RecipeError
from setpoint.recipe import TrainRecipe


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
        ({"scheduler": "linearr"}, "recipe field 'train.scheduler' is 'linearr': did you mean 'linear'?"),
        ({"scheduler": "zzz"}, "recipe field 'train.scheduler' is 'zzz': give one of linear, cosine, "
         "cosine_with_restarts, polynomial, constant, constant_with_warmup, inverse_sqrt, reduce_lr_on_plateau, "
         "cosine_with_min_lr, cosine_warmup_with_min_lr, warmup_stable_decay, greedy"),
        ({"optimizer": "adamw"}, "recipe field 'train.optimizer' is 'adamw': did you mean 'adamw_torch'?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(fields, sentence):
    assert message(**fields) == sentence


@pytest.mark.parametrize(
    "given",
    [{"eval_strategy": "maybe"}, {"report_to": "nothing_known"}, {"logging_steps": 0}, {"fsdp": "zzz"},
     {"lr_scheduler_kwargs": "{"}, {"deepspeed": "x.json"}],
)  # fmt: skip
def test_what_transformers_refuses_is_refused_before_any_training(given):
    text = message(arguments=given)
    assert text.startswith("recipe section 'train' is refused by transformers (")
    assert text.endswith("): mend that field")
    assert "\n" not in text


def test_the_sections_own_path_is_named():
    assert message(section="teacher.train", arguments={"sede": 1}).startswith(
        "recipe field 'teacher.train.arguments.sede' is unknown: did you mean 'seed'?"
    )
