"""A local server that speaks OpenAI's chat protocol, and fails when it is told to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[int, dict[str, Any]], Any]
"""From the number of a request, from 1, and its body: the message to answer with, a status, or a text to send."""


@contextlib.contextmanager
def chat_server(reply: Reply, delay: float = 0.0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run a server; yields its address and the requests so far.

    Args:
        reply: What it answers: a mapping is the assistant message, a number the status of a failure, a text is sent as
            it is, and `None` is no answer at all.
        delay: Seconds before each answer.
    """
    requests: list[dict[str, Any]] = []
    lock, closing = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # headers and body are two writes

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                requests.append(body)
                number = len(requests)
            time.sleep(delay)
            answer = reply(number, body)
            if answer is None:
                closing.wait(30)
                return
            status = answer if isinstance(answer, int) else 200
            if isinstance(answer, int):
                text = json.dumps({"error": {"message": "busy", "type": "busy", "code": answer}})
            elif isinstance(answer, str):
                text = answer
            else:
                choice = {"index": 0, "message": {"role": "assistant", **answer}, "finish_reason": "stop"}
                usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
                text = json.dumps(
                    {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
                    | {"usage": usage}
                )
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", requests
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
