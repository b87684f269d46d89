"""The commands that ship a student and keep it fresh: export, predict, serve, bench, refresh, rollback."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from setpoint.cli_shared import Json, print_json, quiet

commands = typer.Typer()

Shipped = Annotated[Path, typer.Argument(metavar="MODEL", help="A folder that setpoint export wrote.")]


class Format(StrEnum):
    """What a student is exported as."""

    onnx = "onnx"
    safetensors = "safetensors"


class Quantize(StrEnum):
    """The weights of an exported student."""

    int8 = "int8"


@commands.command(
    epilog="Examples: `setpoint export runs/demo --format onnx` · `setpoint export runs/demo --format onnx "
    "--quantize int8 --out student` · `setpoint export runs/demo --format safetensors --push-to-hub me/student`"
)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    format: Annotated[Format, typer.Option(help="onnx to serve it; safetensors for transformers' pipeline().")],
    quantize: Annotated[Quantize | None, typer.Option(help="Weights of 8 bits, of ONNX alone.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder; in the run's exports unless given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Which of the run's students; the best known unless given.")] = None,
    push_to_hub: Annotated[str | None, typer.Option(metavar="REPO", help="Upload it to the Hugging Face Hub.")] = None,
    as_json: Json = False,
) -> None:
    """Write a run's student as a folder to ship, once its logits are found to be PyTorch's and it is calibrated."""
    from setpoint.shipping.export import export, push
    from setpoint.shipping.terminal import print_export

    quiet()
    place, found, why = export(run, format.value, quantize="int8" if quantize else None, out=out, seed=seed)
    print_json(found.model_dump(mode="json")) if as_json else print_export(place, found, why)
    if push_to_hub is not None:
        typer.echo(f"Uploaded: {push(place, push_to_hub)}", err=as_json)


@commands.command(
    epilog="Examples: `setpoint predict student texts.jsonl > answers.jsonl` · `setpoint predict student texts.csv "
    "--out answers.parquet` · `setpoint predict student pictures/ one.png`"
)
def predict(
    model: Shipped,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help=".jsonl, .csv, .parquet, .txt, pictures or folders of them."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="A .jsonl, .csv or .parquet file; JSON lines on stdout unless given.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs that are computed together.")] = 32,
) -> None:
    """Label what is in files, with calibrated probabilities; as a stream, in order."""
    from setpoint.shipping.predict import predict_files

    quiet()
    predict_files(model, inputs, out, batch_size)


@commands.command(
    epilog="Examples: `setpoint serve student` · `setpoint serve student --port 9000 --token-file token.txt` · "
    "`setpoint serve versions/ --max-batch 64 --max-delay-ms 2`"
)
def serve(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An exported folder, or one of versions with one that is current.")
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen at; others than this machine can ask at 0.0.0.0.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Any free one where it is 0.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="The bearer token that requests need; or set SETPOINT_TOKEN.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Inputs that are computed together.")] = 32,
    max_delay_ms: Annotated[float, typer.Option(min=0, help="How long an input waits for others.")] = 5,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 1 << 20,
    max_inputs: Annotated[int, typer.Option(min=1, help="Inputs of a request.")] = 256,
    max_characters: Annotated[int, typer.Option(min=1, help="Characters of an input.")] = 20_000,
    threads: Annotated[int | None, typer.Option(min=1, help="For one batch; all cores unless given.")] = None,
) -> None:
    """Answer requests over HTTP: /predict, /health and /metrics, described at /docs. Ctrl-C lets those that run end."""
    from setpoint.shipping.limits import Limits
    from setpoint.shipping.serve import read_token, serve

    quiet()
    limits = Limits(max_body, max_inputs, max_characters, max_batch, max_delay_ms / 1000)
    serve(model, host, port, read_token(token_file), limits, threads)


@commands.command(
    epilog="Examples: `setpoint bench runs/demo runs/demo/exports/onnx` · "
    "`setpoint bench student other --data texts.jsonl --json`"
)
def bench(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Exported folders, and folders of runs.")],
    data: Annotated[
        Path | None, typer.Option(help="A file of inputs; the validation split of the run unless given.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="For the throughput.")] = 32,
    threads: Annotated[int | None, typer.Option(min=1, help="For each model; all cores unless given.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write accuracy against latency as a page.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure latency, throughput, memory and size of exports, and of a run's teacher and student."""
    from setpoint.shipping.bench import bench
    from setpoint.shipping.bench_page import print_costs, write_page

    quiet()
    costs = bench(models, data, batch_size, threads)
    print_json([cost.as_json() for cost in costs]) if as_json else print_costs(costs)
    if plot is not None:
        write_page(plot, costs)


@commands.command(
    epilog="Examples: `setpoint refresh runs/demo --data new.jsonl` · "
    "`setpoint refresh runs/demo --data new.jsonl --force`"
)
def refresh(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    data: Annotated[Path, typer.Option(help="New examples, labelled or not: .conll, .jsonl, .csv or .parquet.")],
    force: Annotated[bool, typer.Option("--force", help="Distil though no drift is seen.")] = False,
    as_json: Json = False,
) -> None:
    """Distil a run's student on, where new data have drifted; promote it if it is better there and no worse elsewhere.

    The same command continues a refresh that was stopped.
    """
    from setpoint.insight.terminal import print_sentences
    from setpoint.shipping.refresh import refresh

    quiet()
    found = refresh(run, data, force=force)
    print_json(found) if as_json else print_sentences(found["sentences"])


@commands.command(epilog="Example: `setpoint rollback runs/demo`")
def rollback(run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a refreshed run.")]) -> None:
    """Go back to the student before the last one that setpoint refresh has promoted."""
    from setpoint.shipping.kept import rollback

    typer.echo(f"Version {rollback(run)} is current.")
