from __future__ import annotations

import copy
import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from rwml_gym.encoders import endpoint
from rwml_gym.encoders.cached import make_encoder
from rwml_gym.encoders.endpoint import EndpointEncoder
from rwml_gym.encoders.local import HashingEncoder
from rwml_gym.errors import EncoderError, InvalidConfigError
from rwml_gym.reward.gap import GapReward

pytest.importorskip("openai")


class Handler(BaseHTTPRequestHandler):
    """An embeddings endpoint as OpenAI documents it, with rows in reverse order."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers["Authorization"], request))
        if self.server.failures:
            self.server.failures -= 1
            return self.answer(500, {"error": {"message": "busy"}})
        if self.server.page:
            return self.answer(200, "<html>Welcome</html>")
        if request["model"] != "hashing":
            return self.answer(404, {"error": {"message": "no such model"}})
        rows = HashingEncoder(16).encode(request["input"]) * 3
        data = [{"object": "embedding", "index": i, "embedding": row.tolist()} for i, row in enumerate(rows)]
        if self.server.short:
            data = data[1:]
        if not self.server.numbered:
            data = [{**row, "index": None} for row in data][::-1]
        self.answer(200, {"object": "list", "data": data[::-1], "model": "hashing"})

    def answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.failures, server.short, server.page, server.numbered = [], 0, False, False, True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.address = f"http://127.0.0.1:{server.server_port}/v1#hashing"
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.long
def test_rows_are_those_of_the_endpoint_and_cached(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    encoder = make_encoder(server.address)
    texts = ["You open the fridge 1.", "Nothing happens.", "Nö 🙂"]
    np.testing.assert_allclose(encoder.encode(texts), HashingEncoder(16).encode(texts), atol=1e-6)
    encoder.encode(texts)
    assert len(server.requests) == 1
    path, key, request = server.requests[0]
    assert (path, key, request["input"]) == ("/v1/embeddings", "Bearer secret", texts)
    assert "secret" not in encoder.name
    assert make_encoder(server.address) is encoder


def test_the_reward_can_be_measured_elsewhere(server):
    gap = GapReward(server.address, threshold=0.1)
    assert gap(["Nothing happens.", "A", ""], ["Nothing happens."] * 3).rewards.tolist() == [1, 0, 0]


def test_many_texts_go_in_several_requests(server, monkeypatch):
    monkeypatch.setattr(endpoint, "_BATCH", 4)
    texts = [str(n) for n in range(10)]
    vectors = EndpointEncoder(server.address).encode(texts)
    assert [len(request["input"]) for *_, request in server.requests] == [4, 4, 2]
    np.testing.assert_allclose(vectors, 3 * HashingEncoder(16).encode(texts), atol=1e-6)
    assert EndpointEncoder(server.address).encode([]).shape == (0, 0)


@pytest.mark.long
def test_a_request_that_fails_once_is_sent_again(server):
    server.failures = 1
    assert EndpointEncoder(server.address).encode(["a"]).shape == (1, 16)
    assert len(server.requests) == 2


def test_an_unknown_model_is_an_error_that_says_so(server):
    with pytest.raises(EncoderError, match=r"Expected 1 embeddings .*NotFoundError.*has the model"):
        make_encoder(server.address.replace("#hashing", "#other")).encode(["a"])


def test_missing_rows_are_an_error(server):
    server.short = True
    with pytest.raises(EncoderError, match=r"Expected rows 0 to 1 .* actual: \[1\]"):
        EndpointEncoder(server.address).encode(["a", "b"])


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setattr(endpoint, "_RETRIES", 0)
    with pytest.raises(EncoderError, match="Check that the server runs"):
        EndpointEncoder("http://127.0.0.1:9/v1#hashing").encode(["a"])


@pytest.mark.parametrize("address", ["http://localhost:8000/v1", "http://#model", "https://localhost/v1# "])
def test_addresses_without_host_or_model_are_refused(address):
    with pytest.raises(InvalidConfigError, match="Expected the address of an embeddings endpoint and its model"):
        make_encoder(address)


def test_passwords_do_not_get_into_names():
    with pytest.raises(InvalidConfigError, match="OPENAI_API_KEY"):
        make_encoder("https://user:secret@host/v1#model")


def test_neither_pickle_nor_copy_hold_the_key(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    encoder = EndpointEncoder(server.address)
    assert b"secret" not in pickle.dumps(encoder)
    again = copy.deepcopy(encoder)
    np.testing.assert_array_equal(again.encode(["a"]), encoder.encode(["a"]))


def test_an_empty_key_is_none(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert EndpointEncoder(server.address).encode(["a"]).shape == (1, 16)


def test_an_address_that_is_no_api_says_so(server):
    server.page = True
    with pytest.raises(EncoderError, match=r"Expected embeddings from .* usually ends in /v1"):
        EndpointEncoder(server.address).encode(["a"])


def test_rows_without_numbers_are_taken_in_order(server):
    server.numbered = False
    vectors = EndpointEncoder(server.address).encode(["a", "bb"])
    np.testing.assert_allclose(vectors, 3 * HashingEncoder(16).encode(["a", "bb"]), atol=1e-6)


def test_a_key_goes_to_no_plain_address(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    for address, key in (
        ("http://gpu-box:8000/v1", "none"),
        ("http://192.168.0.7/v1", "none"),
        ("http://localhost.example.com/v1", "none"),
        ("http://localhost:8000/v1", "secret"),
        ("http://127.0.0.2/v1", "secret"),
        ("http://[::1]/v1", "secret"),
        ("https://gpu-box/v1", "secret"),
    ):
        assert EndpointEncoder(f"{address}#m")._client.api_key == key


def test_a_server_that_sends_byte_by_byte_is_late():
    class Dripping(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            while not self.server.stopped.wait(0.05):
                self.wfile.write(b" ")
                self.wfile.flush()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    server.stopped = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    encoder = EndpointEncoder(f"http://127.0.0.1:{server.server_port}/v1#m", timeout=30.0, deadline=0.3)
    failures = []

    def ask():
        with pytest.raises(EncoderError, match=r"no answer within 0\.3 s"):
            encoder.encode(["x"])
        failures.append(1)

    try:
        ask()
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(30)
        assert len(failures) == 2
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
