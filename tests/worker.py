"""Workers of a search as processes of their own, that may kill themselves at a given moment."""

import os
import subprocess
import sys

import yaml

WORKER = """
import importlib, os, signal, sys
from setpoint import pipeline
from setpoint.recipe_file import load_recipe
from setpoint.tuning import student
recipe, folder, moment, calls, student.PARTS = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
module, _, path = moment.partition(":")
*owners, name = path.split(".")
owner = importlib.import_module(module)
for part in owners:
    owner = getattr(owner, part)
real, count = getattr(owner, name), 0
def bomb(*args, **kwargs):
    global count
    count += 1
    if count == calls:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(owner, name, bomb)
print(pipeline.tune(load_recipe(recipe), folder).verdict.sentence)
"""
STUDY = "setpoint.tuning.study:SharedStudy."
STUDENT = "setpoint.tuning.student:"
POPULATION = "setpoint.tuning.population:Population."


def start(recipe, folder, moment=STUDY + "report", calls=0, parts=10):
    """A worker; it dies at that call of what ``moment`` names, where one is given."""
    command = [sys.executable, "-c", WORKER, str(recipe), str(folder), moment, str(calls), str(parts)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    """What it said."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return out.strip()


def written(tmp_path, raw):
    """The path of a recipe."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(raw))
    return recipe
