"""A real HTTP proxy on loopback, in front of a real S3 endpoint, that fails as it is told."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FOR_EVER = 1 << 30


@dataclass
class _Fault:
    kind: str
    method: str
    part: str
    times: int


class FaultProxy:
    """Passes requests on to ``endpoint``, and keeps what they were as ``(method, path)`` in ``requests``."""

    def __init__(self, endpoint: str) -> None:
        self.requests: list[tuple[str, str]] = []
        self.before_body: Callable[[], None] = lambda: None
        self._faults: list[_Fault] = []
        self._guard = threading.Lock()
        self.closing = threading.Event()
        target = urlsplit(endpoint)
        handler = type("Handler", (_Handler,), {"proxy": self, "target": (target.hostname, target.port)})
        self.server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def fail(self, kind: str, times: int = FOR_EVER, *, method: str = "GET", part: str = "") -> None:
        """Answer the next ``times`` requests of ``method`` with ``part`` in their path by a fault.

        Kinds: ``STATUS CODE`` (an error document of S3), ``refuse`` (reset before an answer), ``silent`` (no answer),
        ``trickle`` (a byte every 20 ms), ``cut`` (half the body), ``flip`` (one byte changed), ``flip-sent`` (one byte
        of the request's body changed).
        """
        self._faults.append(_Fault(kind, method, part, times))

    def fault_of(self, method: str, path: str) -> str:
        with self._guard:
            self.requests.append((method, path))
            for fault in self._faults:
                if fault.times and fault.method == method and fault.part in path:
                    fault.times -= 1
                    return fault.kind
        return ""

    def count(self, part: str, method: str = "GET") -> int:
        """How many requests of ``method`` had ``part`` in their path."""
        return sum(m == method and part in path for m, path in self.requests)


@contextmanager
def fault_proxy(endpoint: str) -> Iterator[FaultProxy]:
    """A running :class:`FaultProxy`."""
    proxy = FaultProxy(endpoint)
    thread = threading.Thread(target=proxy.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield proxy
    proxy.closing.set()
    proxy.server.shutdown()
    proxy.server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that left is no news here."""


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    target: tuple[str, int]
    protocol_version = "HTTP/1.1"

    def do(self) -> None:
        body = self._body()
        fault = self.proxy.fault_of(self.command, self.path)
        if fault == "refuse":
            return self._reset()
        if fault == "silent":
            self.proxy.closing.wait(10)
            return self._reset()
        if fault[:1].isdigit():
            status, code = fault.split()
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test wants</Message></Error>"
            return self._answer(int(status), [("Content-Type", "application/xml")], text.encode(), "")
        if fault == "flip-sent":
            body = body[:-200] + bytes([body[-200] ^ 1]) + body[-199:]
        upstream = http.client.HTTPConnection(*self.target, timeout=30)
        upstream.request(self.command, self.path, body or None, dict(self.headers.items()))
        answer = upstream.getresponse()
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("connection", "transfer-encoding")]
        self._answer(answer.status, headers, answer.read(), fault)
        upstream.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

    def _body(self) -> bytes:
        if self.headers.get("Expect"):
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        del self.headers["Transfer-Encoding"]
        return body

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: str) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.flush()
        if self.command == "HEAD":
            return
        self.proxy.before_body()
        if fault == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault == "trickle":
            return self._trickle(body)
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        if fault == "cut":
            self.close_connection = True

    def _trickle(self, body: bytes) -> None:
        self.close_connection = True
        with suppress(OSError):  # the client left
            for n in range(len(body)):
                self.wfile.write(body[n : n + 1])
                if self.proxy.closing.wait(0.02):
                    return

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def finish(self) -> None:
        with suppress(OSError, ValueError):  # reset on purpose
            super().finish()

    def log_message(self, *_: object) -> None:
        pass
