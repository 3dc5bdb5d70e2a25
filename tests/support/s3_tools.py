"""S3 for tests: moto's server on a port of its own, and one before it that meddles with what passes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_RCVBUF, SOL_SOCKET
from threading import Event, Thread
from time import sleep
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from botocore.loaders import create_loader
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

BACKEND = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]  # what the server, which runs in this process, holds
LOADER = create_loader()
KEY_ID, SECRET = "made-up-id", "made-up-secret"


@contextmanager
def s3_server() -> Iterator[str]:
    """An S3 that holds nothing; its URL."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    assert server._server is not None
    server._server.server_close()


def point_at(patch: pytest.MonkeyPatch, url: str) -> None:
    """Let boto3 find this server and somebody's credentials, and nothing of this machine's own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        patch.delenv(name, raising=False)
    own = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    named = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL_S3": url}
    for name, value in {**own, **named, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        patch.setenv(name, value)
    # Every session reads megabytes of JSON, for a tenth of a second; here there are hundreds of them.
    patch.setattr("botocore.session.create_loader", lambda path: LOADER)


def new_bucket() -> str:
    """Make a bucket in the server; its name."""
    name = f"bucket-{uuid4().hex[:12]}"
    BACKEND.create_bucket(name, "us-east-1")
    return name


class Exchange(BaseHTTPRequestHandler):
    """One request, and what becomes of it."""

    protocol_version = "HTTP/1.1"
    server: "Meddler"

    def handle_one_request(self) -> None:
        """Let the next fault have the request, else hand it on."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.server.seen.append((self.command, dict(self.headers.items())))
        fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        fault(self)

    def forward(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """What the real server answers."""
        upstream = HTTPConnection(urlsplit(self.server.upstream).netloc, timeout=30)
        try:
            upstream.request(self.command, self.path, self.body(), dict(self.headers.items()))
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    def body(self) -> bytes:
        """What was sent."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer; no more than this much of the body, whatever its length is said to be."""
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("connection", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


Fault = Callable[[Exchange], None]


class Meddler(ThreadingHTTPServer):
    """A server before the real one. `faults` befall the next requests in this order, `always` those after them."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.seen: list[tuple[str, dict[str, str]]] = []  # method and headers of each request
        self.faults: list[Fault] = []
        self.always: Fault = hand_on
        self.ending = Event()
        super().__init__(("127.0.0.1", 0), Exchange)
        # Small, so that what is sent is not all taken by the system before it is asked for.
        self.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 1 << 16)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients hang up as they please."""


@contextmanager
def meddler(upstream: str) -> Iterator[Meddler]:
    """A server that meddles with what goes to another."""
    with Meddler(upstream) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.ending.set()
        server.shutdown()
        thread.join()


def hand_on(exchange: Exchange) -> None:
    """No fault at all."""
    exchange.answer(*exchange.forward())


def refuse(status: int, code: str) -> Fault:
    """Answer an error of S3's."""

    def fault(exchange: Exchange) -> None:
        exchange.body()
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>for the test</Message></Error>".encode()
        exchange.answer(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))], body)

    return fault


def babble(exchange: Exchange) -> None:
    """Answer what no S3 would, as a proxy may."""
    exchange.body()
    body = b"<html><body>Please log in<br></body></html>"
    exchange.answer(200, [("Content-Type", "text/html"), ("Content-Length", str(len(body)))], body)


def nod(exchange: Exchange) -> None:
    """Say 200 to whatever it is."""
    exchange.body()
    exchange.answer(200, [("Content-Length", "0")], b"")


def stall(exchange: Exchange) -> None:
    """Take the request and never answer."""
    exchange.server.ending.wait()
    exchange.close_connection = True


def lose(exchange: Exchange) -> None:
    """Let it be done, and hang up without an answer."""
    exchange.forward()
    exchange.close_connection = True


def cut(exchange: Exchange) -> None:
    """Hang up in the middle of the answer."""
    status, headers, body = exchange.forward()
    exchange.answer(status, headers, body[: len(body) // 2])
    exchange.close_connection = True


def hang(exchange: Exchange) -> None:
    """Fall silent in the middle of the answer."""
    status, headers, body = exchange.forward()
    exchange.answer(status, headers, body[: len(body) // 2])
    stall(exchange)


def dawdle(exchange: Exchange) -> None:
    """Take what is sent piece by piece, at 8 MB a second."""
    left = int(exchange.headers["Content-Length"])
    while left:
        left -= len(exchange.rfile.read(min(left, 1 << 18)))
        sleep(1 / 32)
    exchange.answer(200, [("ETag", '"x"'), ("Content-Length", "0")], b"")
