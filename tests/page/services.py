"""A service to look at."""

from dataclasses import dataclass

from tests.acceptance.services import Up


@dataclass(frozen=True)
class Service:
    """A whole service."""

    url: str
    up: Up

    def restart_api(self) -> None:
        """Kill the API's process; the service starts another."""
        (api,) = [process for process in self.up.everything() if "uvicorn" in " ".join(process.cmdline())]
        api.kill()
