"""A service that the tests open in a browser."""

from dataclasses import dataclass

from tests.acceptance.services import Up


@dataclass(frozen=True)
class Service:
    """A whole service, with its URL."""

    url: str
    up: Up

    def restart_api(self) -> None:
        """Kill the API's process; the service starts another one."""
        (api,) = [process for process in self.up.everything() if "uvicorn" in " ".join(process.cmdline())]
        api.kill()
