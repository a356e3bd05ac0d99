"""Measure one text after another for `parser.py`, with the lmdeck of the checkout whose folder is its argument.

Each line in is `{"do": "parse" | "stream" | "send", "text": …, "tools": …}`, each line out the seconds of CPU that it took.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

sys.path.insert(0, f"{sys.argv[1]}/src")

from lmdeck import EmptyReplyError, LMStudio, StreamParser, parse

DELTA = 4


def time_parse(text: str, tools: list[Any] | None) -> float:
    begin = time.process_time()
    parse(text, tools)
    return time.process_time() - begin


def time_stream(text: str, tools: list[Any] | None) -> float:
    """Feed the text in deltas of four characters."""
    deltas = [text[at : at + DELTA] for at in range(0, len(text), DELTA)]
    parser = StreamParser(tools)
    feed = parser.feed
    begin = time.process_time()
    for delta in deltas:
        feed(delta)
    parser.finish()
    return time.process_time() - begin


class Server:
    """A loopback server that sends the text as one whole answer, on threads that are not measured."""

    def __init__(self) -> None:
        self.body = b""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(server.body)))
                self.end_headers()
                self.wfile.write(server.body)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.client = LMStudio(base_url=f"http://127.0.0.1:{self._http.server_address[1]}", model="m", retry_attempts=1)

    def time_send(self, text: str, tools: list[Any] | None) -> float:
        """Ask for the text, and count this thread's time only."""
        message = {"role": "assistant", "content": text}
        self.body = json.dumps({
            "id": "1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }).encode()  # fmt: skip
        chat = self.client.chat().user("a")
        chat = chat.with_tools(tools) if tools else chat
        begin = time.thread_time()
        with suppress(EmptyReplyError):  # an answer of nothing but white space
            chat.send()
        return time.thread_time() - begin


def main() -> None:
    ways: dict[str, Callable[[str, list[Any] | None], float]] = {"parse": time_parse, "stream": time_stream}
    warm: list[tuple[str, object]] = []
    for line in sys.stdin:
        job = json.loads(line)
        if job["do"] == "send" and "send" not in ways:
            ways["send"] = Server().time_send
        if (job["do"], job["tools"]) not in warm:
            warm.append((job["do"], job["tools"]))
            ways[job["do"]]("warm", job["tools"])
        print(ways[job["do"]](job["text"], job["tools"]), flush=True)


if __name__ == "__main__":
    main()
