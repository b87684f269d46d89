import copy
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from setpoint.errors import RecipeError
from setpoint.recipe import TASK_NAMES, PretrainedModel, Recipe
from setpoint.recipe_file import describe_fields, load_recipe, parse_recipe, recipe_to_yaml
from setpoint.recipe_images import CutmixAugment, FlipAugment, ShiftAugment
from setpoint.recipe_temperature import ConstantTemperature, StepTemperature
from setpoint.temperature import POLICIES

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
VALID = {
    "name": "x",
    "task": "text-classification",
    "data": {"train": "train.csv", "test": "test.csv"},
    "teacher": {"model": "some/teacher"},
    "student": {"model": "some/student"},
}
UNLISTED = "remove it; `setpoint recipe --fields` lists all"
QUOTED = "give text, in quotes where YAML reads something else"
POSITIVE = "give a finite number above 0"
WITHIN = "give a number from 0.001 to 10000"
POLICY_NAMES = ", ".join(f"'{name}'" for name in POLICIES)
UNWRITABLE = "a value that is too long, nested too deeply or not Unicode"
ABSENT = object()


def changed(field, value):
    """The valid recipe with one field set, or taken out."""
    raw = copy.deepcopy(VALID)
    *sections, leaf = field.split(".")
    place = raw
    for section in sections:
        place = place.setdefault(section, {})
    if value is ABSENT:
        del place[leaf]
    else:
        place[leaf] = value
    return raw


def message(raw, **options):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(raw, **options)
    return str(caught.value)


def written(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def write(tmp_path, raw):
    return written(tmp_path, yaml.safe_dump(raw))


# ---------------------------------------------------------------------------------------------------- mistakes

STEPS = "'shift', 'flip', 'mixup', 'cutmix', 'sound'"
MISTAKES = [
    # unknown
    ("nam", "x", "'nam' is unknown: did you mean 'name'?"),
    ("data.trian", "x", "'data.trian' is unknown: did you mean 'train'?"),
    ("train.lerning_rate", 1, "'train.lerning_rate' is unknown: did you mean 'learning_rate'?"),
    ("student.model", {"modle": "m"}, "'student.model.modle' is unknown: did you mean 'model'?"),
    ("teacher.pretrain", {"text": "t", "train": {"epoch": 3}},
     "'teacher.pretrain.train.epoch' is unknown: did you mean 'epochs'?"),
    # a tag that is a field too is not mistaken for it
    ("student.model", {"kind": "layers", "layers": 3, "layerz": 1},
     "'student.model.layerz' is unknown: did you mean 'layers'?"),
    ("student.model", {"kind": "config", "config": {}, "foo": 1}, f"'student.model.foo' is unknown: {UNLISTED}"),
    ("targets", {"kind": "store", "store": 1}, f"'targets.store' is unknown: {UNLISTED}"),
    # unknown here, known elsewhere
    ("epochs", 3, "'epochs' is unknown: did you mean 'train.epochs'?"),
    ("objective.beta", 1, "'objective.beta' is unknown: did you mean 'temperature.beta'?"),
    ("temperature", {"start": 1, "end": 2},
     "'temperature.start' is unknown: it goes with policy 'linear' or 'cosine' or 'exponential' or 'progressive'"
     " or 'itkd' or 'meta' or 'taid'"),
    ("student.model", {"layers": 3}, "'student.model.layers' is unknown: it goes with kind 'layers' or 'shrunk'"),
    ("zzz", 1, f"'zzz' is unknown: {UNLISTED}"),
    ("data", {5: 1}, f"'data.5' is unknown: {UNLISTED}"),
    # missing
    ("name", ABSENT, "'name' is missing: add it"),
    ("data", ABSENT, "'data' is missing: add it"),
    ("teacher.model", {}, "'teacher.model.model' is missing: add it"),
    ("student.model", {"kind": "layers"}, "'student.model.layers' is missing: add it"),
    ("temperature", {"policy": "linear", "start": 1},
     "'temperature' is not two temperatures: give start and end, or beta for both"),
    ("temperature", {"policy": "step", "steps": {0.0: 4}, "beta": {0.0: 0.25}},
     "'temperature' is not one list of temperatures: give steps, or beta for each step"),
    ("temperature", {"policy": "linear", "beta": [0.125, 0]}, f"'temperature.beta.1' is 0: {POSITIVE}"),
    ("data", {}, "'data' has no source: give dataset, or the files train and test"),
    # ill-typed
    ("name", 5, f"'name' is 5: {QUOTED}"),
    ("data", None, "'data' is empty: give a section of fields"),
    ("data", [1], "'data' is [1]: give a section of fields"),
    ("data.train", {"a": 1}, f"'data.train' is a section: {QUOTED}"),
    ("data.labels", "a", "'data.labels' is 'a': give a list"),
    ("data.labels", ["a"], "'data.labels' is ['a']: give a list of at least 2"),
    ("data.labels", ["pos", "neg", "neg"], "'data.labels' names 'neg' twice: give each class once"),
    ("data.labels", ["a", True], f"'data.labels.1' is true: {QUOTED}"),
    ("data.columns", ["a", "a"], "'data.columns' names 'a' twice: give each column once"),
    ("data.limit", 0, "'data.limit' is 0: give a whole number, 1 or above"),
    ("data.limit", "all", "'data.limit' is 'all': give a whole number"),
    ("data.limit", {"train": 0}, "'data.limit.train' is 0: give a whole number, 1 or above"),
    ("data.limit", {"spread": True}, "'data.limit' has spread without a number: give train, validation or test"),
    ("data.limit", {"trian": 3}, "'data.limit.trian' is unknown: did you mean 'train'?"),
    ("data.only", {"trian": {"a": [1]}}, "'data.only.trian' is unknown: did you mean 'train'?"),
    ("data.only", {"train": {"a": 1}}, "'data.only.train.a' is 1: give a list"),
    ("data.only", {"train": {"a": []}}, "'data.only.train.a' is []: give a list of at least 1"),
    ("data.only", {"validation": {"a": [1]}}, "'data' has only.validation without a validation split: give validation"),
    ("data.shares", {"train": 0.9, "validation": 0.2}, "'data.shares' adds up to 1.1: give shares that add up to 1"),
    ("data.shares", {"train": 1, "validation": 0.1}, "'data.shares.train' is 1: give a number between 0 and 1"),
    ("data.shares", {"train": 0.5}, "'data.shares.validation' is missing: add it"),
    ("data.shares", {"train": 0.8, "validation": 0.1, "test": 0.1},
     "'data' has test and a share of train for it: remove one"),
    ("data", {"train": "a", "validation": "b", "split_by": "c"},
     "'data' cuts train by split_by or shares: remove validation"),
    ("data.max_length", "8", "'data.max_length' is '8': give a whole number"),
    ("data.max_length", 8.5, "'data.max_length' is 8.5: give a whole number"),
    ("data.max_length", True, "'data.max_length' is true: give a whole number"),
    ("train.epochs", True, "'train.epochs' is true: give a number"),
    ("train.keep_best", "yes", "'train.keep_best' is 'yes': give true or false"),
    ("hard_baseline", 0, "'hard_baseline' is 0: give true or false"),
    ("teacher.model", 5, "'teacher.model' is 5: give a hub id, a folder, or a section of fields"),
    ("teacher.model", "", "'teacher.model' is '': give text that is not empty"),
    ("student.model", {"kind": "layers", "layers": "x"},
     "'student.model.layers' is 'x': give a whole number, or a list"),
    ("student.model", {"kind": "config", "config": 5},
     f"'student.model.config' is 5: give a section of fields, or {QUOTED.removeprefix('give ')}"),
    ("student.lora.modules", 5, "'student.lora.modules' is 5: give a list, or 'all-linear'"),
    ("temperature", [4], "'temperature' is [4]: give a number above 0, the name of a policy, or a section of fields"),
    ("temperature", "ttm2", f"'temperature.policy' is 'ttm2': give one of {POLICY_NAMES}"),
    ("seeds", 0, "'seeds' is 0: give a list"),
    # out of range
    ("temperature", 0, f"'temperature' is 0: {POSITIVE}"),
    ("temperature", -1.5, f"'temperature' is -1.5: {POSITIVE}"),
    ("temperature", math.nan, f"'temperature' is .nan: {POSITIVE}"),
    ("temperature", math.inf, f"'temperature' is .inf: {POSITIVE}"),
    # so large or small that T·T, or logits / T, is no number in float32
    ("temperature", 1e20, f"'temperature' is 1e+20: {WITHIN}"),
    ("temperature", 10001, f"'temperature' is 10001: {WITHIN}"),
    ("temperature", {"teacher": 2, "student": 9e-4}, f"'temperature.student' is 0.0009: {WITHIN}"),
    ("temperature", {"policy": "linear", "start": 1e5, "end": 1}, f"'temperature.start' is 100000.0: {WITHIN}"),
    ("temperature", {"policy": "step", "steps": {0: 1, 0.5: 1e5}}, f"'temperature.steps.0.5' is 100000.0: {WITHIN}"),
    ("temperature", {"beta": 1e-5}, "'temperature.beta' is 1e-05: give a number from 0.0001 to 1000"),
    ("temperature", {"policy": "cosine", "beta": [1, 1e4]},
     "'temperature.beta.1' is 10000.0: give a number from 0.0001 to 1000"),
    ("temperature", {"policy": "step", "beta": {0: 1e4}},
     "'temperature.beta.0' is 10000.0: give a number from 0.0001 to 1000"),
    ("temperature", {"temperature": 0}, f"'temperature.temperature' is 0: {POSITIVE}"),
    ("temperature", {"beta": 0.0}, f"'temperature.beta' is 0.0: {POSITIVE}"),
    ("temperature", {"teacher": 2, "student": -math.inf}, f"'temperature.student' is -.inf: {POSITIVE}"),
    ("temperature", {"policy": "linear", "start": 0, "end": 1}, f"'temperature.start' is 0: {POSITIVE}"),
    ("temperature", {"policy": "step", "steps": {0: 1, 0.5: math.nan}},
     f"'temperature.steps.0.5' is .nan: {POSITIVE}"),
    ("temperature", {"policy": "step", "steps": {0: 1, 2.0: 3}},
     "'temperature.steps.2.0' is 2.0: give a progress from 0 to 1"),
    ("temperature", {"policy": "step", "steps": {0.5: 1}},
     "'temperature' has no temperature for the start: give one for progress 0.0"),
    ("temperature", {"temperature": 2, "beta": 0.5},
     "'temperature' is not one temperature: give temperature, or beta, or both teacher and student"),
    ("temperature", {"policy": "linar"},
     f"'temperature.policy' is 'linar': give one of {POLICY_NAMES}"),
    ("objective.alpha", 1.5, "'objective.alpha' is 1.5: give a number from 0 to 1"),
    ("objective.alpha", -0.1, "'objective.alpha' is -0.1: give a number from 0 to 1"),
    ("objective.alpha", math.nan, "'objective.alpha' is .nan: give a number from 0 to 1"),
    ("objective.hard", {"top_k": 2},
     "'objective.hard' has top_k with kind 'labels': remove top_k, or set kind to teacher_sample"),
    ("objective.features", "hidden", "'objective.features' is 'hidden': give a list"),
    ("objective.features", ["hiden"],
     "'objective.features.0.kind' is 'hiden': give one of 'hidden', 'cosine', 'pkd', 'attention', 'relations',"
     " 'attention_transfer'"),
    ("objective.features", [5],
     "'objective.features.0' is 5: give the name of a feature, or a section of fields"),
    ("objective.features", [{"weight": 2}], "'objective.features.0' has no kind: add one, such as hidden"),
    ("objective.features", ["pkd", {"kind": "hidden", "weigth": 1}],
     "'objective.features.1.weigth' is unknown: did you mean 'weight'?"),
    ("objective.features", [{"kind": "hidden", "heads": 2}],
     "'objective.features.0.heads' is unknown: it goes with kind 'relations'"),
    ("objective.features", [{"kind": "hidden", "weight": 0}], f"'objective.features.0.weight' is 0: {POSITIVE}"),
    ("objective.features", [{"kind": "hidden", "layers": "first"}],
     "'objective.features.0.layers' is 'first': give 'uniform', 'last' or 'learned', or a list"),
    ("objective.features", [{"kind": "hidden", "layers": [[1, 2, 3]]}],
     "'objective.features.0.layers.0' is [1, 2, 3]: give a list of at most 2"),
    ("objective.features", ["hidden", {"kind": "hidden"}],
     "'objective.features' names 'hidden' twice: give each kind once, with a list of layers"),
    ("teacher.others", [{"modle": "m"}], "'teacher.others.0.modle' is unknown: did you mean 'model'?"),
    ("teacher.others", [{"weight": 1}], "'teacher.others.0.model' is missing: add it"),
    ("name", "a b", "'name' is 'a b': give letters, digits, '.', '_' and '-', a letter or digit first"),
    ("task", "ner", f"'task' is 'ner': give {', '.join(TASK_NAMES[:-1])} or {TASK_NAMES[-1]}"),
    ("teacher.model", {"kind": "layers", "layers": 2},
     "'teacher.model.kind' is 'layers': give one of 'pretrained', 'config'"),
    ("student.model", {"kind": "layers", "layers": 0},
     "'student.model.layers' is 0: give a whole number, 1 or above, or a list"),
    ("student.model", {"kind": "layers", "layers": [0, -1]},
     "'student.model.layers.1' is -1: give a whole number, 0 or above"),
    ("student.dropout", 1, "'student.dropout' is 1: give a number from 0 to below 1"),
    ("train.weight_decay", math.nan, "'train.weight_decay' is .nan: give a finite number, 0 or above"),
    ("train.epochs", math.inf, f"'train.epochs' is .inf: {POSITIVE}"),
    ("train.warmup", 1, "'train.warmup' is 1: give a number from 0 to below 1"),
    ("train.batch_size", 0, "'train.batch_size' is 0: give a whole number, 1 or above"),
    ("teacher.pretrain", {"text": "t", "mask_probability": 0},
     "'teacher.pretrain.mask_probability' is 0: give a number above 0, at most 1"),
    ("seeds", [], "'seeds' is []: give a list of at least 1"),
    ("seeds", [0, 0], "'seeds' names 0 twice: give each seed once"),
    ("seeds", [2**32], "'seeds.0' is 4294967296: give a whole number from 0 to 4294967295"),
    ("teacher.model", "~nouser/x", "'teacher.model' is in the home of an unknown user: give another path"),
    ("data.train", "~nouser/x", "'data.train' is in the home of an unknown user: give another path"),
    ("teacher.model", "x" * 400, "'teacher.model' is longer than a path may be: give a shorter one"),
    ("data.test", "x" * 400, "'data.test' is longer than a path may be: give a shorter one"),
    ("data.test", "a\0b", "'data.test' has a character that no path has: give another path"),
    ("data.augment", {"kind": "mix"}, f"'data.augment.kind' is 'mix': give one of {STEPS}"),
    ("data.augment", [{"kind": "flip"}, {"kind": "cut"}], f"'data.augment.1.kind' is 'cut': give one of {STEPS}"),
    ("data.augment", {"kind": "mixup", "alpha": 0}, f"'data.augment.alpha' is 0: {POSITIVE}"),
    ("data.augment", {"pixles": 2}, "'data.augment.pixles' is unknown: did you mean 'pixels'?"),
    ("data.augment", {"alpha": 2}, "'data.augment.alpha' is unknown: it goes with kind 'mixup' or 'cutmix'"),
    ("data.augment", {"pixels": 2, "views": 3}, "'data.augment.views' is unknown: did you mean 'data.views'?"),
    ("data.augment", [{"kind": "flip"}, {"kind": "shift", "pixels": 0}],
     "'data.augment.1.pixels' is 0: give a whole number, 1 or above"),
    ("data.augment", [{"kind": "mixup"}, {"kind": "flip"}],
     "'data.augment' mixes before its last step: give mixup or cutmix last, and one of them"),
    ("data.augment", [], "'data.augment' is []: give a list of at least 1"),
    ("data.augment", "flip", "'data.augment' is 'flip': give a list"),
    ("data.views", 2, "'data' has views and nothing that differs between them: give augment, or no views"),
    ("data.image_size", 0, "'data.image_size' is 0: give a whole number, 1 or above, or a list"),
    ("data.image_size", [32], "'data.image_size' is [32]: give a whole number, or a list of at least 2"),
    ("data.resize", 9, "'data' has resize without image_size: give image_size alone, or both"),
    ("data.channels", 2, "'data.channels' is 2: give 1 or 3"),
    ("data.resample", "soft",
     "'data.resample' is 'soft': give 'nearest', 'bilinear', 'bicubic', 'lanczos', 'box' or 'hamming'"),
    ("data.mean", [0.5], "'data' has one of mean and std: give both, or neither"),
    ("teacher.others", [{"model": "a"}, {"modle": "b"}],
     "'teacher.others.1.modle' is unknown: did you mean 'model'?"),
    ("teacher.model", "package:no_such_package/model",
     "'teacher.model' needs the Python package 'no_such_package': install it, or give another path"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"mean": [0.5], "std": [1, 1]},
            "has a mean and a std of different lengths: give each a number for each channel",
        ),
        ({"mean": [0.5], "std": [1], "channels": 3}, "has a mean of length 1 and channels 3: give one a channel"),
        ({"image_size": [8, 40], "resize": 32}, "has an image_size that is larger than resize: give a smaller one"),
    ],
)
def test_fields_of_pixels_have_to_fit_one_another(fields, sentence):
    assert message(VALID | {"data": VALID["data"] | fields}) == f"recipe field 'data' {sentence}"


def test_one_step_is_a_list_of_one_and_a_step_without_kind_a_shift():
    def steps(augment):
        return parse_recipe(VALID | {"data": VALID["data"] | {"augment": augment}}).data.augment

    assert steps({"pixels": 2}) == steps([{"kind": "shift", "pixels": 2}]) == (ShiftAugment(pixels=2),)
    two = steps([{"kind": "flip"}, {"kind": "cutmix", "alpha": 0.5}])
    assert two == (FlipAugment(), CutmixAugment(alpha=0.5))
    made = parse_recipe(VALID | {"data": VALID["data"] | {"augment": [{"pixels": 2}, {"kind": "mixup"}], "views": 2}})
    assert parse_recipe(yaml.safe_load(recipe_to_yaml(made))) == made


@pytest.mark.parametrize(("field", "value", "sentence"), MISTAKES, ids=[m[2][:60] for m in MISTAKES])
def test_a_mistake_is_one_sentence_with_field_value_and_mend(field, value, sentence):
    assert message(changed(field, value)) == f"recipe field {sentence}"
    assert message(changed(field, value), folder=".") == f"recipe field {sentence}"


def test_the_valid_recipe_is_valid():
    assert parse_recipe(VALID).temperature == ConstantTemperature(temperature=4.0)


def test_a_misspelt_field_is_named_rather_than_the_one_it_leaves_missing():
    raw = copy.deepcopy(VALID)
    raw["tsk"] = raw.pop("task")
    assert message(raw) == "recipe field 'tsk' is unknown: did you mean 'task'?"


def test_a_recipe_needs_a_test_split():
    raw = VALID | {"data": {"train": "a", "shares": {"train": 0.9, "validation": 0.1}}}
    assert message(raw) == "the recipe has no test split: give data.test, or cut data.train by split_by or shares"


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
                    max_leaves=6),
       st.sampled_from(sorted({line.partition(" ")[0] for line in describe_fields()})))  # fmt: skip
def test_whatever_is_in_a_field_gives_a_recipe_or_one_sentence_that_names_it(value, field):
    raw = copy.deepcopy(VALID)
    *sections, leaf = field.split(".")
    place = raw
    for section in sections:
        if not isinstance(place.get(section), dict):
            place[section] = {}
        place = place[section]
    place[leaf] = value
    try:
        parse_recipe(raw)
        sentence = None
    except RecipeError as error:
        sentence = str(error)
    if sentence is not None:
        assert sentence.startswith("recipe field '")
        named = sentence.split("'")[1].split(".")
        assert named[0] == field.split(".")[0]  # never a name of pydantic's own


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: x\nname: y\n", "is not valid YAML at line 2 ('name' is given twice): mend it"),
        ("a: [1\nb: 2\n", "is not valid YAML at line 2 (expected ',' or ']', but got ':'): mend it"),
        ("? [a]\n: 1\n", "is not valid YAML at line 1 (found unhashable key): mend it"),
        ("a: !!python/object/apply:os.system [ls]\n", "is not valid YAML at line 1"),
        ("name: x\nseeds: 2024-13-45\n", "is not valid YAML at line 2 ('2024-13-45' is no timestamp): mend it"),
        ("name: !!int abc\n", "is not valid YAML at line 1 ('abc' is no int): mend it"),
        ("name: !!int ''\n", "is not valid YAML at line 1 ('' is no int): mend it"),
        ("name: !!bool maybe\n", "is not valid YAML at line 1 ('maybe' is no bool): mend it"),
        ("name: !!timestamp foo\n", "is not valid YAML at line 1 ('foo' is no timestamp): mend it"),
        (f"name: {'1' * 5000}\n", f"is not valid YAML at line 1 ('{'1' * 76}… is no int): mend it"),
        (f"name: 0x{'f' * 5000}\n", f"has {UNWRITABLE}: mend it"),
        (f"name: {'[' * 3000}\n", f"has {UNWRITABLE}: mend it"),
        ("name: &x [*x]\n", f"has {UNWRITABLE}: mend it"),
        ('name: "\\ud800"\n', f"has {UNWRITABLE}: mend it"),
        ("- 1\n", "is not a mapping of sections: start from one in recipes/"),
        ("", "is not a mapping of sections: start from one in recipes/"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path, text, problem):
    path = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"recipe '{path}' {problem}")


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "no.yaml")
    assert str(caught.value) == (
        f"recipe '{tmp_path}/no.yaml' cannot be read (No such file or directory): give the path of a YAML file"
    )
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(RecipeError, match="is not valid YAML"):
        load_recipe(tmp_path / "b.yaml")


def test_nan_and_infinity_of_yaml_are_refused(tmp_path):
    for value in (".nan", ".inf", "-.inf"):
        with pytest.raises(RecipeError) as caught:
            load_recipe(write(tmp_path, VALID), [f"temperature={value}"])
        assert str(caught.value) == f"recipe field 'temperature' is {value}: {POSITIVE}"


def test_exponents_are_numbers(tmp_path):
    recipe = load_recipe(write(tmp_path, VALID), ["train.learning_rate=1e-3"])
    assert recipe.train.learning_rate == 1e-3


def test_overrides_set_sections_values_and_shorthands(tmp_path):
    path = write(tmp_path, VALID | {"temperature": 2})
    recipe = load_recipe(
        path,
        ["train.epochs=7", "seeds=[3, 4]", "temperature.beta=0.5", "student.model={kind: layers, layers: [0, 2]}",
         "train.arguments.max_steps=5", "student.freeze.names=[a=b]"],
    )  # fmt: skip
    assert recipe.train.epochs == 7
    assert recipe.seeds == (3, 4)
    assert recipe.temperature == ConstantTemperature(beta=0.5)
    assert recipe.student.model.layers == (0, 2)
    assert recipe.train.arguments == {"max_steps": 5}
    assert recipe.student.freeze.names == ("a=b",)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.epochs", "override 'train.epochs' is no assignment: write it as section.field=value"),
        ("train..epochs=1", "override 'train..epochs=1' is no assignment: write it as section.field=value"),
        ("=1", "override '=1' is no assignment: write it as section.field=value"),
        ("train.epochs=[", "override 'train.epochs=[' has a value that is not YAML: quote it"),
        ("name=2024-13-45", "override 'name=2024-13-45' has a value that is not YAML: quote it"),
        ("name=!!int abc", "override 'name=!!int abc' has a value that is not YAML: quote it"),
        ("name=!!timestamp foo", "override 'name=!!timestamp foo' has a value that is not YAML: quote it"),
        (f"name={'1' * 5000}", f"override 'name={'1' * 71}… has a value that is not YAML: quote it"),
        (f"name={'[' * 3000}", f"override 'name={'[' * 71}… has {UNWRITABLE}: mend it"),
        ("a\nb", "override 'a\\nb' is no assignment: write it as section.field=value"),
        ("train.epoch=1", "recipe field 'train.epoch' is unknown: did you mean 'epochs'?"),
        ("train.epochs=", "recipe field 'train.epochs' is empty: give a number"),
    ],
)
def test_a_wrong_override_is_one_sentence(tmp_path, override, sentence):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, VALID), [override])
    assert str(caught.value) == sentence


# ---------------------------------------------------------------------------------------------------- paths


def test_relative_files_count_from_the_recipes_folder(tmp_path):
    (tmp_path / "beside").mkdir()
    raw = VALID | {
        "data": {"train": "train.csv", "validation": "sub/dev.csv", "test": "../test.csv"},
        "teacher": {"model": "./teacher", "pretrain": {"text": "corpus.txt"}},
        "student": {"model": "beside", "tokenizer": "bert-base-cased"},
    }
    recipe = load_recipe(write(tmp_path, raw))
    assert recipe.data.train == str(tmp_path / "train.csv")
    assert recipe.data.validation == str(tmp_path / "sub/dev.csv")
    assert recipe.data.test == str(tmp_path.parent / "test.csv")
    assert recipe.teacher.model.model == str(tmp_path / "teacher")
    assert recipe.teacher.pretrain.text == str(tmp_path / "corpus.txt")
    assert recipe.student.model.model == str(tmp_path / "beside")  # a folder that is there is no hub id
    assert recipe.student.tokenizer == "bert-base-cased"


def test_splits_of_a_data_set_are_names_even_beside_a_folder_of_that_name(tmp_path):
    (tmp_path / "train").mkdir()
    raw = VALID | {"data": {"dataset": "glue", "config": "sst2", "train": "train", "test": "test"}}
    data = load_recipe(write(tmp_path, raw)).data
    assert (data.dataset, data.train, data.test) == ("glue", "train", "test")


def test_home_and_packages_are_found():
    recipe = parse_recipe(VALID | {"teacher": {"model": "package:yaml/model"}, "student": {"model": "~/s"}})
    assert recipe.teacher.model.model == str(Path(yaml.__file__).parent / "model")
    assert recipe.student.model.model == str(Path.home() / "s")


# ---------------------------------------------------------------------------------------------------- round trip

ROUND_TRIPS = [
    {},
    {"temperature": {"policy": "step", "steps": {0: 8, 0.5: 2}}},
    {"temperature": {"teacher": 2, "student": 3}, "seeds": [1, 2], "objective": {"hard": {"kind": "teacher_argmax"}}},
    {"student": {"model": {"kind": "layers", "layers": [0, 3]}, "freeze": {"names": ["*.x"]}, "lora": {"rank": 2}}},
    {"student": {"model": {"kind": "config", "config": {"model_type": "bert", "hidden_size": 8}}, "dropout": 0}},
    {"teacher": {"model": "./t", "train": {"arguments": {"max_steps": 3, "optim_args": "a=1"}}}},
    {"data": {"dataset": "glue", "train": "train", "test": "test", "labels": ["no", "ja ü"]}},
    {"objective": {"features": ["pkd", {"kind": "hidden", "layers": [[1, 2], [2, 4]], "weight": 0.5}]}},
]


@pytest.mark.parametrize("change", ROUND_TRIPS)
def test_a_recipe_survives_being_written_and_read(tmp_path, change):
    recipe = load_recipe(write(tmp_path, VALID | change))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert load_recipe(written(elsewhere, recipe_to_yaml(recipe))) == recipe


def test_steps_survive_json():
    recipe = parse_recipe(VALID | {"temperature": {"policy": "step", "steps": {0: 8, 0.5: 2}}})
    assert Recipe.model_validate_json(recipe.model_dump_json()).temperature == StepTemperature(
        policy="step", steps={0.0: 8.0, 0.5: 2.0}
    )


def test_parts_may_be_given_as_values():
    raw = VALID | {"student": {"model": PretrainedModel(model="m")}, "temperature": ConstantTemperature(beta=2.0)}
    recipe = parse_recipe(raw)
    assert recipe.student.model.model == "m"
    assert recipe.temperature.beta == 2.0


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_ready_recipes_are_right(path):
    assert load_recipe(path).name == path.stem


# ---------------------------------------------------------------------------------------------------- the list


def test_every_field_is_described():
    lines = describe_fields()
    paths = [line.partition(" ")[0] for line in lines]
    assert len(set(paths)) == len(paths)
    for line in lines:
        assert line.partition("): ")[2], f"no description: {line}"
    assert "train.epochs (number, default 3.0): Passes over the training split." in lines
    assert "data (section, required): Where the examples are." in lines
    assert "student.lora (section, optional): Low-rank adapters in place of full training." in lines
    assert (
        "student.model.kind (pretrained | config | layers | shrunk, default 'pretrained'): "
        "pretrained: A model with weights; "
        "config: An architecture, with new weights or with those of a file; "
        "layers: The teacher itself, cut to some of its layers; "
        "shrunk: The teacher itself, made smaller; what is not given stays as it is"
    ) in lines


def test_a_listed_default_is_the_default():
    listed = {line.partition(" ")[0]: line for line in describe_fields()}
    recipe = parse_recipe(VALID)
    for section in ("train", "objective", "targets"):
        for name, value in getattr(recipe, section):
            if isinstance(value, float | int) and not isinstance(value, bool):
                assert f"default {value})" in listed[f"{section}.{name}"]


def test_a_recipe_cannot_be_changed():
    recipe = parse_recipe(VALID)
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.epochs = 5
