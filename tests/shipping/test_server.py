"""The HTTP server, in process: what it answers, what it refuses and how, and that a promotion drops nothing."""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from uvicorn.server import ServerState

from setpoint.errors import RunError
from setpoint.shipping import server
from setpoint.shipping.limits import Limits, Refused, parse_inputs, read_body
from setpoint.shipping.protocol import HEAD, BoundedProtocol
from setpoint.shipping.serve import read_token, serve
from setpoint.shipping.server import bears, make_app
from setpoint.shipping.shipped import Shipped
from setpoint.shipping.versions import Served

SENTENCES = [["anna", "lives", "in", "rome"], ["bob"], ["carla", "lives"], "paris"]


@pytest.fixture(scope="module")
def served(ner_onnx):
    return Served(ner_onnx, threads=1)


@pytest.fixture
def client(served):
    limits = Limits(body=10_000, inputs=20, characters=500, delay=0.001)
    with TestClient(make_app(served, limits), raise_server_exceptions=False) as one:
        yield one


def close(found, expected):
    """The same answers, but for the last digit: the other texts of a batch move it."""
    for a, b in zip(found, expected, strict=True):
        assert [(w["word"], w["label"]) for w in a["words"]] == [(w["word"], w["label"]) for w in b["words"]]
        shares = [[w["probability"] for w in one["words"]] for one in (a, b)]
        assert shares[0] == pytest.approx(shares[1], abs=3e-6)


def test_it_answers_as_offline(client, served):
    response = client.post("/predict", json={"inputs": SENTENCES})
    assert response.status_code == 200
    assert response.json()["version"] == "student"
    close(response.json()["predictions"], served.shipped.predict(SENTENCES))
    assert client.post("/predict", json={"inputs": []}).json() == {"version": "student", "predictions": []}


def test_health_and_documents(client, served):
    assert client.get("/health").json() == {
        "status": "ok", "name": "tiny", "version": "student", "task": "token-classification",
        "labels": list(served.shipped.manifest.labels),
    }  # fmt: skip
    described = client.get("/openapi.json").json()
    schema = described["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["inputs"]["maxItems"] == 20
    assert client.get("/docs").status_code == 200


def test_it_counts(client):
    client.post("/predict", json={"inputs": SENTENCES})
    client.post("/predict", content=b"{", headers={"content-type": "application/json"})
    client.get("/made-up")
    text = client.get("/metrics").text
    for line in (
        'setpoint_requests_total{path="/predict",status="200"} 1.0',
        'setpoint_requests_total{path="/predict",status="400"} 1.0',
        'setpoint_requests_total{path="other",status="404"} 1.0',
        "setpoint_inputs_total 4.0",
        'setpoint_model_info{version="student"} 1.0',
        "setpoint_waiting_inputs 0.0",
        "setpoint_batch_size_count 1.0",
    ):
        assert line in text
    assert "made-up" not in text


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "status", "detail"),
    [
        (b"", 400, "the body is not JSON"),
        (b"{", 400, "the body is not JSON"),
        (b'{"inputs": [NaN]}', 400, "the body is not JSON"),
        (b'{"inputs": ["caf\xe9"]}', 400, "the body is not UTF-8, from byte 16 on"),
        (b'{"inputs": [' + b"[" * 5000, 400, "the body is "),
        (b"9" * 5000, 400, "the body is not JSON"),
        (b"[]", 422, 'the body has no list "inputs": send {"inputs": [...]}'),
        (b'{"inputs": "anna"}', 422, 'the body has no list "inputs"'),
        (b'{"inputs": [["a"], 5]}', 422, "input 1 has 5 for its tokens: give a list of strings"),
        (b'{"inputs": [["a"], {"words": 5}]}', 422, "input 1 has no 'tokens', only 'words': give tokens"),
        (b'{"inputs": [["\\ud800"]]}', 422, "input 0 has ['\\ud800'] for its tokens"),
        (json.dumps({"inputs": [["a"]] * 21}).encode(), 413, "there are 21 inputs, more than 20"),
        (json.dumps({"inputs": ["a" * 500]}).encode(), 413, "input 0 has 501 characters, more than 500"),
        (json.dumps({"inputs": ["a"], "more": "x" * 10_000}).encode(), 413, "the body is larger than 10,000 bytes"),
    ],
    ids=range(14),
)
def test_what_it_cannot_take_is_a_clear_4xx(client, content, status, detail):
    response = client.post("/predict", content=content, headers=JSON)
    assert response.status_code == status
    assert response.json()["detail"].startswith(detail)
    assert list(response.json()) == ["detail"]


def test_other_ways_to_ask(client):
    assert client.post("/predict", content=b'{"inputs": []}', headers={"content-type": "text/plain"}).status_code == 415
    assert client.get("/predict").status_code == 405
    for path in ("/predict/../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/student", "/predict/..%5c"):
        response = client.post(path, json={"inputs": []})
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


def test_a_million_tokens_are_refused_before_the_tokenizer(served, monkeypatch):
    def never(*_):
        raise AssertionError("tokenised")

    with TestClient(make_app(served, Limits(body=1 << 24))) as client:
        monkeypatch.setattr(served.shipped.task, "encode_inputs", never)
        start = time.perf_counter()
        for million in (" ".join(["a"] * 10**6), ["a"] * 10**6, [""] * 10**6):
            response = client.post("/predict", json={"inputs": [million]})
            assert response.status_code == 413
            assert response.json()["detail"].startswith("input 0 has ")
        assert time.perf_counter() - start < 5
    with TestClient(make_app(served, Limits())) as client:
        assert client.post("/predict", json={"inputs": ["a " * 10**6]}).status_code == 413


def test_a_body_is_given_up_on_as_soon_as_it_is_too_large():
    sent = 0

    async def parts():
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 10

    for announced, most in (("101", 0), ("9" * 5000, 0), (None, 11), ("5", 11), ("-1", 11), ("x", 11)):
        sent = 0
        with pytest.raises(Refused) as caught:
            asyncio.run(read_body(parts(), announced, 100))
        assert (caught.value.status, sent) == (413, most)


def test_the_token_is_asked_of_all_but_health(served):
    with TestClient(make_app(served, Limits(), "s3cret-ü")) as client:
        for given in (
            None,
            "Bearer",
            "Bearer wrong",
            "Basic s3cret-ü",
            "s3cret-ü",
            "Bearer s3cret-",
            "Bearer s3cret-üü",
        ):
            headers = {} if given is None else {"authorization": given.encode()}
            for method, path in (("POST", "/predict"), ("GET", "/metrics")):
                response = client.request(method, path, content=b'{"inputs": []}', headers=headers | JSON)
                assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
                assert response.json() == {"detail": "the bearer token is missing or wrong"}
        right = {"authorization": "Bearer s3cret-ü".encode()}
        assert client.post("/predict", json={"inputs": ["a"]}, headers=right).status_code == 200
        assert client.get("/metrics", headers=right).status_code == 200
        assert client.get("/health").status_code == 200


def test_a_token_is_compared_in_constant_time(monkeypatch):
    asked = []
    monkeypatch.setattr(server.hmac, "compare_digest", lambda *pair: asked.append(pair) or pair[0] == pair[1])
    assert bears("Bearer x", "x")
    assert not bears(None, "x")
    assert not bears("Bearer \u20ac", "x")
    assert asked[0] == (b"x", b"x")
    assert len(asked) == 3


def test_a_failure_of_the_model_tells_no_client_why(client, served, monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError("secret path /home/me")

    monkeypatch.setattr(served.shipped.task, "encode_inputs", fails)
    response = client.post("/predict", json={"inputs": ["a"]})
    assert (response.status_code, response.json()) == (500, {"detail": "internal error"})
    assert "secret path" in caplog.text
    monkeypatch.undo()
    assert client.post("/predict", json={"inputs": ["a"]}).status_code == 200


def test_too_many_waiting_are_told_to_come_back(served):
    with TestClient(make_app(served, Limits(waiting=2))) as client:
        response = client.post("/predict", json={"inputs": ["a", "b", "c"]})
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")


async def ask(app, requests, at_once):
    """Ask an application about each of many inputs, some at a time."""
    gate, answers = asyncio.Semaphore(at_once), []
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):

        async def one(value):
            async with gate:
                response = await client.post("/predict", json={"inputs": [value]})
                assert response.status_code == 200, response.text
                return response.json()

        answers = await asyncio.gather(*(one(value) for value in requests))
        text = (await client.get("/metrics")).text
    return answers, text


def many(n):
    names = ["anna", "bob", "carla", "paris", "rome", "oslo", "lives", "in"]
    return [[names[(i * k + k) % 8] for k in range(1, i % 9 + 2)] for i in range(n)]


def test_batches_give_each_asker_its_own_answer(served):
    asked = many(300)
    answers, text = asyncio.run(ask(make_app(served, Limits(batch=16, delay=0.02)), asked, 40))
    close([answer["predictions"][0] for answer in answers], served.shipped.predict(asked))
    batches = float(text.split("setpoint_batch_size_count ")[1].split()[0])
    assert batches < 60  # 300 one by one would be 300


def test_a_version_is_promoted_under_load_without_a_request_dropped(ner_onnx, ner_int8, tmp_path, monkeypatch):
    folder = tmp_path / "versions"
    shutil.copytree(ner_onnx, folder / "v1")
    shutil.copytree(ner_int8, folder / "v2")
    (folder / "current").write_text("v1")
    monkeypatch.setattr(server, "LOOK", 0.02)
    served = Served(folder, threads=1)
    offline = {version: Shipped.open(folder / version) for version in ("v1", "v2")}
    # The scales of int8 are those of a batch; one input a batch makes its answers those of offline, to be compared.
    app = make_app(served, Limits(batch=1, delay=0))
    asked = many(20)
    expected = {version: [one.predict([words])[0] for words in asked] for version, one in offline.items()}

    async def load():
        seen = []
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
        ):

            async def one(worker):
                until, i = time.perf_counter() + 20, worker
                while time.perf_counter() < until and seen.count("v2") < 50:
                    i = (i + 1) % 20
                    response = await client.post("/predict", json={"inputs": [asked[i]]})
                    assert response.status_code == 200
                    found = response.json()
                    close(found["predictions"], [expected[found["version"]][i]])
                    seen.append(found["version"])
                    if len(seen) == 50:
                        (folder / "current").write_text("v2")

            await asyncio.gather(*(one(worker) for worker in range(8)))
        return seen

    seen = asyncio.run(load())
    first = seen.index("v2")
    assert seen.count("v2") >= 50
    assert first >= 50
    assert seen[first + 8 :].count("v1") == 0  # what was under way at the swap may be answered after it


def test_the_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("SETPOINT_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("SETPOINT_TOKEN", "abc")
    assert read_token(None) == "abc"
    (tmp_path / "token").write_text("def\n")
    assert read_token(tmp_path / "token") == "def"
    (tmp_path / "token").write_text(" \n")
    with pytest.raises(RunError, match=r"the token file '.*token' is empty: write a token"):
        read_token(tmp_path / "token")
    with pytest.raises(RunError, match=r"none' cannot be read"):
        read_token(tmp_path / "none")
    monkeypatch.setenv("SETPOINT_TOKEN", "")
    with pytest.raises(RunError, match="the variable SETPOINT_TOKEN is empty"):
        read_token(None)


def test_a_port_that_is_taken_is_one_sentence(ner_onnx):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=rf"port {port} of 127.0.0.1 cannot be opened \(.*\): choose another"):
            serve(ner_onnx, port=port)


def test_inputs_are_a_list_in_an_object():
    assert parse_inputs(b'{"inputs": ["a", 1]}', 2) == ["a", 1]


def test_a_head_without_an_end_is_cut_off():
    """In one long header, or in endless short ones; a large body, and a request after it, are none of that."""
    body = b"x" * (3 * HEAD)

    async def app(scope, receive, send):
        size, more = 0, True
        while more:
            part = await receive()
            size, more = size + len(part["body"]), part["more_body"]
        content = str(size).encode()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]}
        )
        await send({"type": "http.response.body", "body": content})

    async def ask(port, *parts):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.writelines(parts)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer

    async def main():
        config = uvicorn.Config(app, http=BoundedProtocol, lifespan="off")
        config.load()
        state = ServerState()

        def protocol():
            return BoundedProtocol(config=config, server_state=state, app_state={})

        async with await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            start = b"GET / HTTP/1.1\r\nhost: x\r\n"
            whole = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            return [
                await ask(port, start + b"a: " + b"x" * HEAD),
                await ask(port, start, *[b"a: b\r\n"] * (HEAD // 6)),
                await ask(port, whole, whole + start + b"\r\n"),
            ]

    long, endless, right = asyncio.run(main())
    assert long.startswith(b"HTTP/1.1 431 ")
    assert endless.startswith(b"HTTP/1.1 431 ")
    assert [right.count(one) for one in (b"HTTP/1.1 200 OK", b"%d" % len(body), b"431")] == [3, 2, 0]


@pytest.mark.slow
def test_a_server_that_is_told_to_stop_answers_what_runs(ner_onnx):
    command = [sys.executable, "-m", "setpoint", "serve", str(ner_onnx), "--port", "0", "--max-delay-ms", "1500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split(" at ")[1].split()[0]
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(httpx.post, f"{address}/predict", json={"inputs": [words]}, timeout=20)
                for words in SENTENCES
            ]
            time.sleep(0.7)  # they wait for others to fill the batch
            process.send_signal(signal.SIGTERM)
            answers = [one.result() for one in asked]
        assert process.wait(20) == 0
    assert [answer.status_code for answer in answers] == [200] * 4
    close([answer.json()["predictions"][0] for answer in answers], Shipped.open(ner_onnx).predict(SENTENCES))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_fuzzing_finds_no_5xx(served, mode):
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    app = make_app(served, Limits(delay=0.0))
    operation = schemathesis.openapi.from_asgi("/openapi.json", app)["/predict"]["POST"]
    seen = []

    @settings(
        max_examples=80, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(operation.as_strategy(GenerationMode(mode)))
    def each(case):
        checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
        seen.append(case.call_and_validate(checks=checks).status_code)

    each()
    assert len(seen) > 60
    assert (200 in seen) if mode == "positive" else (422 in seen)
