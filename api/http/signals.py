"""The signals that end this process, handled before the server waits for its open responses."""

import signal
from asyncio import get_running_loop
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_ending(*stops: Callable[[], None]) -> Iterator[None]:
    """Call `stops` in the event loop as soon as a signal asks the process to end; then call the server's handler.

    uvicorn ends the lifespan only after all responses are complete. A stream that waited for that would never end.
    """
    if current_thread() is not main_thread():  # of a test; only the main thread receives signals
        yield
        return
    loop = get_running_loop()
    servers = {number: handler for number in ENDING if callable(handler := signal.getsignal(number))}

    def handle(number: int, frame: FrameType | None) -> None:
        for stop in stops:
            loop.call_soon_threadsafe(stop)
        servers[signal.Signals(number)](number, frame)

    for number in servers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in servers.items():
            signal.signal(number, handler)
