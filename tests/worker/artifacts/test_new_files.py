"""Files that are written before the rows that name them."""

from pathlib import Path

import pytest

from worker.artifacts.folder import FolderStore
from worker.artifacts.new_files import NewFiles
from worker.errors import LeaseLost


@pytest.mark.parametrize(("error", "stays"), [(LeaseLost, False), (OSError, True), (None, True)])
def test_files_are_removed_only_if_their_rows_are_refused(
    tmp_path: Path, error: type[Exception] | None, stays: bool
) -> None:
    """After any other error, such as a lost connection, the rows may exist."""

    def write() -> None:
        with NewFiles(FolderStore(tmp_path)) as files:
            files.write("job/a", b"one")
            files.write("job/b", b"two")
            if error is not None:
                raise error

    if error is None:
        write()
    else:
        with pytest.raises(error):
            write()

    assert [(tmp_path / "job" / name).exists() for name in "ab"] == [stays, stays]
