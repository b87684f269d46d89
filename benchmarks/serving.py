"""A server under load: many clients at once on loopback, each answer compared with the offline one.

    python benchmarks/serving.py runs/conll2003-5m/exports/onnx --out docs/results/serving.md

Offline is the same model in this process, asked for the same inputs in batches of the server's size, in the order they
come, before the server is started and after it has gone, as a machine's speed drifts. Clients and server share the
cores; the client is one process of bare sockets, so that little of them goes to it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from setpoint.files import write_atomic, write_json
from setpoint.shipping.bench import find_inputs
from setpoint.shipping.shipped import Shipped

CLOSE = 1e-4
"""How far a probability may be from the offline one: batches of other texts move its last digits."""


def shares(answer: dict) -> list[float]:
    return (
        [word["probability"] or 0.0 for word in answer["words"]]
        if "words" in answer
        else [*answer["probabilities"].values()]
    )


def labels(answer: dict) -> list:
    return [word["label"] for word in answer["words"]] if "words" in answer else [answer["label"]]


def same(found: dict, expected: dict) -> bool:
    """The same labels, and probabilities but for rounding; where two classes tie to that, either may be the label."""
    pairs = list(zip(shares(found), shares(expected), strict=True))
    return all(abs(a - b) <= CLOSE for a, b in pairs) and (
        labels(found) == labels(expected) or any(abs(a - 0.5) < CLOSE for a, _ in pairs)
    )


def offline(shipped: Shipped, inputs: list, batch: int) -> tuple[list[dict], float]:
    """All answers in batches, and how many a second."""
    shipped.predict(inputs[: 4 * batch], batch)  # warm
    start, answers = time.perf_counter(), []
    for first in range(0, len(inputs), batch):
        answers += shipped.predict(inputs[first : first + batch], batch)
    return answers, len(inputs) / (time.perf_counter() - start)


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> tuple[int, bytes]:
    writer.write(
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        + body
    )
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length[1]) if length else 0)


async def load(host: str, port: int, bodies: list[bytes], count: int, clients: int) -> tuple[list, list[float], float]:
    """Ask ``count`` times, ``clients`` at a time; gives what came back, how long each took, and all of it."""
    answers: list = [None] * count
    times = [0.0] * count
    numbers = iter(range(count))

    async def client() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for number in numbers:
            start = time.perf_counter()
            try:
                answers[number] = await post(reader, writer, bodies[number % len(bodies)])
            except (OSError, asyncio.IncompleteReadError) as error:
                answers[number] = (0, str(error).encode())
                writer.close()
                reader, writer = await asyncio.open_connection(host, port)
            times[number] = time.perf_counter() - start
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return answers, times, time.perf_counter() - start


def resident(process: subprocess.Popen) -> float:
    """The MB that a process has in memory."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096 / 1e6


async def watched(process: subprocess.Popen, work) -> tuple[object, list[float]]:
    """What some work gives, and the server's memory meanwhile, ten times a second."""
    task, seen = asyncio.create_task(work), []
    while not task.done():
        seen.append(resident(process))
        await asyncio.wait([task], timeout=0.1)
    return task.result(), seen


def measure(options: argparse.Namespace) -> dict:
    inputs = find_inputs([options.model], options.data)
    shipped = Shipped.open(options.model, threads=options.threads)
    expected, rate = offline(shipped, inputs, options.batch)
    bodies = [json.dumps({"inputs": [value]}).encode() for value in inputs]
    command = [
        sys.executable, "-m", "setpoint", "serve", str(options.model), "--port", "0", "--max-batch", str(options.batch),
        "--max-delay-ms", str(options.delay), "--threads", str(options.threads),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            host, port = re.search(r"http://([\d.]+):(\d+)", process.stdout.readline()).groups()
            asyncio.run(load(host, int(port), bodies, 10 * options.clients, options.clients))  # warm
            (answers, times, seconds), memory = asyncio.run(
                watched(process, load(host, int(port), bodies, options.requests, options.clients))
            )
            metrics = _get(host, int(port))
        finally:
            process.terminate()
    rates = [rate, offline(shipped, inputs, options.batch)[1]]
    rate = statistics.harmonic_mean(rates)
    errors = sum(status != 200 for status, _ in answers)
    wrong = sum(
        status == 200 and not same(json.loads(body)["predictions"][0], expected[number % len(expected)])
        for number, (status, body) in enumerate(answers)
    )
    sizes = {name: float(re.search(rf"setpoint_batch_size_{name} ([\d.e+]+)", metrics)[1]) for name in ("sum", "count")}
    cuts = [1000 * cut for cut in statistics.quantiles(times, n=100)]
    return {
        "model": str(options.model), "dtype": shipped.manifest.dtype, "requests": options.requests,
        "clients": options.clients, "batch": options.batch, "delay_ms": options.delay, "threads": options.threads,
        "errors": errors, "wrong": wrong, "seconds": seconds, "per_second": options.requests / seconds,
        "offline_per_second": rate, "offline_before_and_after": rates,
        "share": options.requests / seconds / rate, "p50_ms": cuts[49], "p95_ms": cuts[94],
        "p99_ms": cuts[98], "mean_batch": sizes["sum"] / sizes["count"], "memory_start_mb": memory[0],
        "memory_middle_mb": memory[len(memory) // 2], "memory_end_mb": memory[-1], "exit": process.returncode,
    }  # fmt: skip


def _get(host: str, port: int) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://{host}:{port}/metrics") as answer:
        return answer.read().decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an exported folder")
    parser.add_argument("--data", type=Path, help="inputs; the validation split of the run that the export lies in")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--delay", type=float, default=5.0, help="milliseconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(options)
    lines = [
        "# A server under load", "",
        f"{found['clients']} clients at once on loopback, one input a request, {found['requests']:,} requests; each"
        f" answer compared with the offline one. `setpoint serve --max-batch {found['batch']} --max-delay-ms"
        f" {found['delay_ms']:g} --threads {found['threads']}`, {found['dtype']}; server and clients share the cores.",
        "",
        "| | |", "|---|---:|",
        f"| errors | {found['errors']} |",
        f"| wrong answers | {found['wrong']} |",
        f"| requests a second | {found['per_second']:,.0f} |",
        f"| offline, batches of {found['batch']}, inputs a second | {found['offline_per_second']:,.0f} (before, after:"
        f" {', '.join(f'{one:,.0f}' for one in found['offline_before_and_after'])}) |",
        f"| share of offline | {100 * found['share']:.0f} % |",
        f"| p50, p95, p99 of a request | {found['p50_ms']:.1f}, {found['p95_ms']:.1f}, {found['p99_ms']:.1f} ms |",
        f"| inputs in a batch, on average | {found['mean_batch']:.1f} |",
        f"| memory of the server at the start, halfway, at the end | {found['memory_start_mb']:.0f},"
        f" {found['memory_middle_mb']:.0f}, {found['memory_end_mb']:.0f} MB |",
        "", f"Command: `python benchmarks/serving.py {' '.join(sys.argv[1:])}`", "",
    ]  # fmt: skip
    print("\n".join(lines))
    if options.out is not None:
        write_atomic(options.out, "\n".join(lines))
        write_json(options.out.with_suffix(".json"), found)


if __name__ == "__main__":
    main()
