"""The command line. Heavy imports wait inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from setpoint import processes
from setpoint.cli_shared import Json
from setpoint.cli_shared import print_json as _print_json
from setpoint.cli_shared import quiet as _quiet
from setpoint.cli_shipping import commands as shipping
from setpoint.errors import SetpointError
from setpoint.files import write_atomic

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Knowledge distillation with the temperature under control.",
    epilog="Example: `setpoint run recipes/digits.yaml`",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"setpoint {version('setpoint')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Knowledge distillation with the temperature under control."""


RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field: `--set train.epochs=3`. Repeatable."),
]


@app.command(
    epilog="Examples: `setpoint run recipes/digits.yaml` · `setpoint run R --set temperature=2 --run-dir runs/t2`"
)
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    run_dir: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME unless given.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, forgetting what the run folder holds.")] = False,
    as_json: Json = False,
) -> None:
    """Distil a teacher into a student, as the recipe says. The same command continues a run that was stopped."""
    from setpoint.recipe_file import load_recipe

    checked = load_recipe(recipe, overrides or ())  # a mistake in the recipe shows before the heavy imports
    from setpoint import pipeline
    from setpoint.insight.terminal import print_run

    _quiet()
    folder = run_dir or Path("runs") / checked.name
    results = pipeline.run(checked, folder, fresh=fresh)
    if processes.leads():
        _print_json(results) if as_json else print_run(results, folder)


@app.command(
    epilog="Examples: `setpoint tune recipes/digits.yaml` · `setpoint tune R --budget 30m` · "
    "`setpoint tune R --set 'tune.search.temperature=[1, 2, 4, 8]'` · "
    "`setpoint tune R --storage postgresql+psycopg://me@host/optuna` on each machine"
)
def tune(
    recipe: RecipePath,
    overrides: Overrides = None,
    budget: Annotated[
        str | None, typer.Option(help="1.0x of an ordinary run, a time such as 30m, or '24 trials'.")
    ] = None,
    storage: Annotated[str | None, typer.Option(help="An Optuna storage that several workers share.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME unless given.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, forgetting what the run folder holds.")] = False,
    as_json: Json = False,
) -> None:
    """Find the temperature on validation data, for about the price of one ordinary run.

    The same command continues a search that was stopped; run at the same time elsewhere, it shares the work.
    """
    from setpoint.recipe_file import load_recipe

    given = {"tune.budget": budget, "tune.storage": storage}
    assignments = [f"{field}={json.dumps(value)}" for field, value in given.items() if value is not None]
    checked = load_recipe(recipe, [*(overrides or ()), *assignments])
    from setpoint import pipeline
    from setpoint.insight.terminal import print_outcome

    _quiet()
    folder = run_dir or Path("runs") / checked.name
    outcome = pipeline.tune(checked, folder, fresh=fresh)
    if processes.leads():
        _print_json(outcome.as_json()) if as_json else print_outcome(outcome, folder)


@app.command(epilog="Examples: `setpoint recipe --check R` · `setpoint recipe --fields`")
def recipe(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")] = None,
    overrides: Overrides = None,
    check: Annotated[bool, typer.Option("--check", help="Say nothing where the recipe is right.")] = False,
    fields: Annotated[bool, typer.Option("--fields", help="List every field with its type and default.")] = False,
    as_json: Json = False,
) -> None:
    """Check a recipe, and show it whole, defaults included."""
    from setpoint.recipe_file import describe_fields, load_recipe, recipe_to_yaml

    if fields:
        lines = describe_fields()
        _print_json(lines) if as_json else typer.echo("\n".join(lines))
        return
    if recipe is None:
        raise typer.BadParameter("give a recipe, or --fields")
    checked = load_recipe(recipe, overrides or ())
    if as_json:
        _print_json(checked.model_dump(mode="json"))
    elif not check:
        typer.echo(recipe_to_yaml(checked), nl=False)


@app.command(epilog="Examples: `setpoint methods` · `setpoint methods ctkd` · `setpoint methods --json`")
def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One method alone, in full.")] = None,
    as_json: Json = False,
) -> None:
    """List every way to set a temperature, every divergence and every kind of hard targets."""
    from setpoint.catalogue import find, table
    from setpoint.insight.methods import print_methods

    rows = table() if name is None else [find(name)]
    _print_json(rows) if as_json else print_methods(rows)


@app.command(
    epilog="Examples: `setpoint suggest logits.npz` · `setpoint suggest logits.npy --labels labels.npy` ·"
    " `setpoint suggest runs/digits/targets --json`"
)
def suggest(
    logits: Annotated[
        Path,
        typer.Argument(metavar="LOGITS", help="Saved logits: .npy, .npz, .safetensors, .parquet, or a target store."),
    ],
    labels: Annotated[Path | None, typer.Option(help="The labels of these rows, where they lie elsewhere.")] = None,
    as_json: Json = False,
) -> None:
    """Propose a temperature, and a range to search, from a teacher's saved logits alone; and say why."""
    from dataclasses import asdict

    from setpoint.insight.terminal import print_suggestion
    from setpoint.tuning.prior import suggest
    from setpoint.tuning.saved_logits import read_logits

    found = suggest(*read_logits(logits, labels))
    _print_json(asdict(found)) if as_json else print_suggestion(found)


@app.command(
    epilog="Examples: `setpoint explain runs/demo` · `setpoint explain --logits teacher.npz --labels labels.npy` · "
    "`setpoint explain --logits teacher.npz --student student.npz --temperature 4 --alpha 0.9 --json` · "
    "`setpoint explain --logits teacher.npz --out page.html`"
)
def explain(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="The folder of a finished run.")] = None,
    logits: Annotated[
        Path | None,
        typer.Option(help="Instead of a run: a teacher's saved logits, .npy, .npz, .safetensors, .parquet or a store."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="The labels of these rows, where they lie elsewhere.")] = None,
    student: Annotated[Path | None, typer.Option(help="A student's saved logits on the same rows.")] = None,
    temperature: Annotated[float | None, typer.Option(help="The T to explain; the suggested one unless given.")] = None,
    alpha: Annotated[float | None, typer.Option(help="The weight of the divergence; 0.9 unless given.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the page to this file; that of a run is in its folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say why a temperature, or why not: of a run, on its validation data, or of logits alone, with no training at all.

    Of a run also `report.html` and `report.md` in its folder: a page with plots and a slider, and all tables.
    """
    from dataclasses import asdict

    given = {"labels": labels, "student": student, "temperature": temperature, "alpha": alpha, "out": out}
    named = [f"--{name}" for name, value in given.items() if value is not None]
    if (run is None) == (logits is None):
        what = "neither RUN nor --logits is given" if run is None else "both RUN and --logits are given"
        raise SetpointError(what, "give a run's folder, or a teacher's saved logits")
    if run is not None and named:
        raise SetpointError(f"{named[0]} is given for a run, which has its own", "give it with --logits")
    if logits is not None:
        from setpoint.insight.explain_files import explain_files

        found = explain_files(logits, labels, student, temperature, 0.9 if alpha is None else alpha, out)
    else:
        from setpoint.insight.explain_run import explain_run

        _quiet()
        found = explain_run(run)  # type: ignore[arg-type]
    if as_json:
        _print_json(asdict(found))
        return
    from setpoint.insight.terminal import print_explanation

    print_explanation(found)
    page = out if run is None else run / "report.html"
    if page is not None:
        typer.echo(f"Report: {page}")


@app.command(
    epilog="Examples: `setpoint compare runs/t2 runs/t4` · `setpoint compare runs/t2 runs/t4 --json` · "
    "`setpoint compare runs/a runs/b runs/c --out compare.html`"
)
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="The folders of finished runs.")],
    out: Annotated[Path | None, typer.Option(help="Write a page here too.")] = None,
    as_json: Json = False,
) -> None:
    """Put finished runs of one task beside each other, each against the first, with intervals."""
    from setpoint.insight.compare import compare
    from setpoint.insight.compare_page import print_comparison, write_comparison

    found = compare(*runs)
    if out is not None:
        write_comparison(out, found)
    _print_json(found.as_json()) if as_json else print_comparison(found)
    if out is not None and not as_json:
        typer.echo(f"Page: {out}")


@app.command(
    epilog="Examples: `setpoint card runs/demo` · `setpoint card runs/demo --out runs/demo/student/seed-0/README.md`"
)
def card(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    out: Annotated[Path | None, typer.Option(help="Write it here; on stdout unless given.")] = None,
) -> None:
    """Write a model card for the Hub: teacher, temperature and its evidence, scores, recipe."""
    from setpoint.insight.model_card import model_card

    text = model_card(run)
    if out is None:
        typer.echo(text, nl=False)
        return
    write_atomic(out, text)
    typer.echo(f"Card: {out}")


app.add_typer(shipping)


def main() -> None:
    """The console entry point: every expected error is one sentence on stderr and its exit code."""
    try:
        code = app(standalone_mode=False)
        if code == 130:  # the user pressed Ctrl-C
            typer.echo("setpoint: stopped; the same command continues where it stopped", err=True)
    except SetpointError as error:
        typer.echo(f"setpoint: {error}", err=True)
        code = error.exit_code
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]
        code = error.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
