"""S3 for tests: moto's server on a free port, and a faulty proxy in front of it."""

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

BACKEND = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]  # the content of the server, which runs in this process
LOADER = create_loader()
KEY_ID, SECRET = "made-up-id", "made-up-secret"


@contextmanager
def s3_server() -> Iterator[str]:
    """Start an empty S3 server, and yield its URL."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    assert server._server is not None
    server._server.server_close()


def point_at(patch: pytest.MonkeyPatch, url: str) -> None:
    """Make boto3 use this server and made-up credentials, and none of this machine's settings."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        patch.delenv(name, raising=False)
    own = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    named = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL_S3": url}
    for name, value in {**own, **named, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        patch.setenv(name, value)
    # Every session reads megabytes of JSON, which takes a tenth of a second; the tests open hundreds of sessions.
    patch.setattr("botocore.session.create_loader", lambda path: LOADER)


def new_bucket() -> str:
    """Make a bucket in the server, and return its name."""
    name = f"bucket-{uuid4().hex[:12]}"
    BACKEND.create_bucket(name, "us-east-1")
    return name


class Exchange(BaseHTTPRequestHandler):
    """One request to the proxy, and its response."""

    protocol_version = "HTTP/1.1"
    server: "Meddler"

    def handle_one_request(self) -> None:
        """Handle the request by the next fault, or by `always` if no fault is left."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.server.seen.append((self.command, dict(self.headers.items())))
        fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        fault(self)

    def forward(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send the request to the real server, and return its answer."""
        upstream = HTTPConnection(urlsplit(self.server.upstream).netloc, timeout=30)
        try:
            upstream.request(self.command, self.path, self.body(), dict(self.headers.items()))
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    def body(self) -> bytes:
        """Return the body of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send an answer with exactly this body, even if the Content-Length header announces more."""
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("connection", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


Fault = Callable[[Exchange], None]


class Meddler(ThreadingHTTPServer):
    """A proxy in front of the real server. The next requests get `faults` in order, and later ones get `always`."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.seen: list[tuple[str, dict[str, str]]] = []  # method and headers of each request
        self.faults: list[Fault] = []
        self.always: Fault = hand_on
        self.ending = Event()
        super().__init__(("127.0.0.1", 0), Exchange)
        # A small buffer, so that the system does not accept a whole body before the proxy reads it.
        self.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 1 << 16)

    @property
    def url(self) -> str:
        """The URL of the proxy."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing, because clients may hang up at any time."""


@contextmanager
def meddler(upstream: str) -> Iterator[Meddler]:
    """Start and yield a faulty proxy in front of another server."""
    with Meddler(upstream) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.ending.set()
        server.shutdown()
        thread.join()


def hand_on(exchange: Exchange) -> None:
    """Pass the request and the answer on without a fault."""
    exchange.answer(*exchange.forward())


def refuse(status: int, code: str) -> Fault:
    """Return a fault that answers with an S3 error."""

    def fault(exchange: Exchange) -> None:
        exchange.body()
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>for the test</Message></Error>".encode()
        exchange.answer(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))], body)

    return fault


def babble(exchange: Exchange) -> None:
    """Answer with an HTML page, as a proxy may and S3 never does."""
    exchange.body()
    body = b"<html><body>Please log in<br></body></html>"
    exchange.answer(200, [("Content-Type", "text/html"), ("Content-Length", str(len(body)))], body)


def nod(exchange: Exchange) -> None:
    """Answer 200 to any request, without doing anything."""
    exchange.body()
    exchange.answer(200, [("Content-Length", "0")], b"")


def stall(exchange: Exchange) -> None:
    """Take the request and never answer."""
    exchange.server.ending.wait()
    exchange.close_connection = True


def lose(exchange: Exchange) -> None:
    """Pass the request on, and hang up without an answer."""
    exchange.forward()
    exchange.close_connection = True


def cut(exchange: Exchange) -> None:
    """Hang up in the middle of the answer."""
    status, headers, body = exchange.forward()
    exchange.answer(status, headers, body[: len(body) // 2])
    exchange.close_connection = True


def hang(exchange: Exchange) -> None:
    """Stop sending in the middle of the answer, but keep the connection open."""
    status, headers, body = exchange.forward()
    exchange.answer(status, headers, body[: len(body) // 2])
    stall(exchange)


def dawdle(exchange: Exchange) -> None:
    """Read the body slowly, piece by piece, at 8 MB per second."""
    left = int(exchange.headers["Content-Length"])
    while left:
        left -= len(exchange.rfile.read(min(left, 1 << 18)))
        sleep(1 / 32)
    exchange.answer(200, [("ETag", '"x"'), ("Content-Length", "0")], b"")
