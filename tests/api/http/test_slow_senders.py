"""Bodies that stop in the middle, against a real uvicorn."""

import socket
from time import sleep
from urllib.parse import urlsplit

import pytest

PATHS = ["/predict", "/jobs/tune", "/jobs/predict?model=cnn", "/v2/models/cnn/infer", "/datasets?name=letters"]


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_stops_in_the_middle_is_not_held_for_ever(
    path: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gets an answer and its connection is closed at once, not after an idle timeout."""
    monkeypatch.setattr("api.http.slow_senders.SILENT_SECONDS", 0.2)
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 408"), answer[:500]
    assert b"application/problem+json" in answer
    assert b"connection: close" in answer.lower()
    assert b"send it again" in answer


@pytest.mark.long
def test_a_body_that_comes_in_pieces_is_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole body may take longer than the limit for one piece."""
    monkeypatch.setattr("api.http.slow_senders.SILENT_SECONDS", 3.0)
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as client:
        head = f"POST /jobs/tune HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: 4\r\nConnection: close\r\n\r\n".encode())
        for piece in (b"n", b"u", b"l", b"l"):
            sleep(1.0)
            client.sendall(piece)
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 422"), answer[:500]
