"""Artifacts in a folder and in S3: the contract of both, then the failures of each."""

import hashlib
import resource
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.s3_tools import (
    BACKEND,
    KEY_ID,
    SECRET,
    Fault,
    Meddler,
    babble,
    cut,
    dawdle,
    hand_on,
    hang,
    lose,
    meddler,
    new_bucket,
    nod,
    point_at,
    refuse,
    s3_server,
    stall,
)

from ml.artifacts import Saved
from ml.datasets import Arrays
from ml.errors import CheckpointError, UnknownName
from worker.artifacts.folder import FolderStore
from worker.artifacts.keys import PIECE, is_key
from worker.artifacts.s3 import S3Store
from worker.artifacts.store import Store, store_of
from worker.database.engine import Database
from worker.errors import BadKey, StorageAway, StorageFull
from worker.settings import Settings
from worker.uploaded_datasets import DatasetStore

ROOT = Path(__file__).parents[3]
CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEY = "0123456789ab/7.2.safetensors"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Return the URL of an S3 server."""
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an empty bucket, and point the AWS settings to its server."""
    point_at(monkeypatch, s3)
    return new_bucket()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return an empty store of each kind."""
    if request.param == "folder":
        return store_of(Settings(artifacts=str(tmp_path / "artifacts")))
    bucket = request.getfixturevalue("bucket")
    return store_of(Settings(artifacts=f"s3://{bucket}/a/prefix"))


@pytest.fixture
def faulty(s3: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Meddler]:
    """Return a proxy that boto3 uses and that injects faults between boto3 and the bucket."""
    with meddler(s3) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        yield server


def spoil(store: Store, key: str, content: bytes) -> None:
    """Change an object behind the store's back."""
    if isinstance(store, FolderStore):
        (store.folder / key).write_bytes(content)
    elif isinstance(store, S3Store):
        BACKEND.put_object(store.bucket, store.prefix + key, content)


def listed(store: Store, prefix: str = "") -> list[str]:
    """Return the keys that start with a prefix."""
    return [key for key, _ in store.keys(prefix)]


# --- the contract


@pytest.mark.parametrize("content", [b"", b"\0", CONTENT, CONTENT * 200], ids=len)
def test_an_object_is_read_as_it_was_written(store: Store, content: bytes) -> None:
    """The content is the same byte for byte, and the returned hash and size are its own."""
    saved = store.write(KEY, content)

    assert saved == Saved(hashlib.sha256(content).hexdigest(), len(content))
    assert store.read(KEY, saved.sha256) == content
    assert b"".join(store.pieces(KEY, saved.sha256)) == content


def test_pieces_are_small(store: Store) -> None:
    """Reading a large object holds only one piece of it in memory."""
    content = CONTENT * 200
    saved = store.write(KEY, content)
    sizes = [len(piece) for piece in store.pieces(KEY, saved.sha256)]

    assert max(sizes) <= PIECE < len(content) == sum(sizes)


def test_writing_the_same_object_again_is_no_error(store: Store) -> None:
    """A caller that does not know if a write succeeded repeats it."""
    first = store.write(KEY, CONTENT)

    assert store.write(KEY, CONTENT) == first
    assert listed(store) == [KEY]


def test_a_key_never_changes_its_content(store: Store) -> None:
    """An object that a row points to cannot be replaced."""
    store.write(KEY, CONTENT)

    with pytest.raises(BadKey, match="already holds different content"):
        store.write(KEY, b"other")
    assert store.read(KEY, SHA256) == CONTENT


def test_a_missing_object_says_what_to_do(store: Store) -> None:
    """The message is the same in an empty store and next to other objects."""
    with pytest.raises(CheckpointError, match="missing; restore it or train again"):
        store.read(KEY, SHA256)
    store.write(KEY, CONTENT)
    for read in (store.read, store.pieces):
        with pytest.raises(CheckpointError, match="missing; restore it or train again"):
            read("0123456789ab/8.2.safetensors", SHA256)


@pytest.mark.parametrize("damaged", [b"", CONTENT[:-1], CONTENT + b"\0", b"\1" + CONTENT[1:]], ids=len)
def test_a_damaged_object_is_not_read(store: Store, damaged: bytes) -> None:
    """An object that is empty, truncated, longer or has one changed byte is refused."""
    store.write(KEY, CONTENT)
    spoil(store, KEY, damaged)

    for read in (store.read, store.pieces):
        with pytest.raises(CheckpointError, match="damaged"):
            read(KEY, SHA256)


def test_a_removed_object_is_gone(store: Store) -> None:
    """No other object is removed, and removing the object again is no error."""
    store.write(KEY, CONTENT)
    store.write(f"{KEY}.onnx", CONTENT)
    for _ in range(2):
        store.remove(KEY)

    assert listed(store) == [f"{KEY}.onnx"]
    with pytest.raises(CheckpointError, match="missing"):
        store.read(KEY, SHA256)


def test_keys_are_listed_by_prefix(store: Store) -> None:
    """A prefix may be any first characters of a key, not only whole folder names."""
    written = {"a/1.onnx", "a/2.onnx", "ab/1.onnx", "b/c/1.onnx", "top"}
    for key in written:
        store.write(key, CONTENT)

    assert set(listed(store)) == written
    assert set(listed(store, "a")) == {"a/1.onnx", "a/2.onnx", "ab/1.onnx"}
    assert set(listed(store, "a/")) == {"a/1.onnx", "a/2.onnx"}
    assert set(listed(store, "a/2")) == {"a/2.onnx"}
    assert set(listed(store, "b/c/")) == {"b/c/1.onnx"}
    assert not list(store.keys("c/"))


def test_an_empty_store_lists_nothing(store: Store) -> None:
    """Listing before the first write is no error."""
    assert not list(store.keys())
    assert not list(store.keys("0123456789ab/"))


def test_keys_are_listed_with_the_time_of_their_write(store: Store) -> None:
    """The time is in seconds since 1970, accurate to the second."""
    before = time()
    store.write(KEY, CONTENT)
    ((_, modified),) = store.keys()

    assert before - 1.5 <= modified <= time() + 1.5


def test_keys_may_be_removed_while_they_are_listed(store: Store) -> None:
    """The janitor removes keys in this way."""
    for number in range(20):
        store.write(f"job/{number}", b"")
    for key, _ in store.keys("job/"):
        store.remove(key)

    assert not list(store.keys())


def test_many_threads_may_write_the_same_object(store: Store) -> None:
    """All writes succeed, and the object is complete."""
    with ThreadPoolExecutor(8) as threads:
        saved = set(threads.map(lambda _: store.write(KEY, CONTENT * 20), range(16)))

    assert len(saved) == 1
    assert store.read(KEY, saved.pop().sha256) == CONTENT * 20


def test_no_reader_sees_a_partial_object(store: Store) -> None:
    """Every object that is listed during writes exists and is complete."""
    contents = {f"job/{n}": bytes([n]) * 1_000_000 for n in range(40)}
    hashes = {key: hashlib.sha256(content).hexdigest() for key, content in contents.items()}
    seen = 0
    with ThreadPoolExecutor(2) as threads:
        writing = [threads.submit(store.write, key, content) for key, content in contents.items()]
        while not all(write.done() for write in writing):
            for key in [key for key in listed(store) if "/." not in key]:
                seen += store.read(key, hashes[key]) == contents[key]

    assert seen > 0
    assert {write.result().sha256 for write in writing} == set(hashes.values())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("damaged", [b"", b"other"], ids=len)
def test_a_data_set_that_is_damaged_is_repaired_by_uploading_it_again(
    store: Store, database: Database, tmp_path: Path, damaged: bytes
) -> None:
    """The version stays the same and its images can be read; before, the error says what to do."""
    uploaded = DatasetStore(database, store, tmp_path / "cache")
    arrays = Arrays(np.zeros((100, 1, 2, 2), np.uint8), np.arange(100, dtype=np.uint8) % 2)
    added, _ = uploaded.add("bars", arrays, ("a", "b"))
    spoil(store, added.path, damaged)
    found = uploaded.find("bars")
    with pytest.raises(CheckpointError, match=r"damaged: .*; restore it or upload the data set again"):
        found.read()
    again, is_new = uploaded.add("bars", arrays, ("a", "b"))

    assert (again.version, again.file_sha256, is_new) == (1, added.file_sha256, False)
    assert found.read().sha256() == arrays.sha256()
    assert listed(store) == [added.path]


BAD_KEYS = [
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "../up",
    "a/../../up",
    "a/..",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "/a",
    "a\\b",
]
BAD_KEYS += ["C:\\a", "a\0b", "a\n", "\n", "a b", "ä", "a/%2e%2e/b", "~/a", "$HOME", "a?b", "a*", "..\\a", "\u2025/a"]
BAD_KEYS += ["x" * 256, "/".join(["x" * 100] * 6)]


def test_a_key_that_could_lead_out_of_the_store_is_refused(store: Store) -> None:
    """Every call refuses it."""
    for key in BAD_KEYS:
        for call in (lambda key: store.write(key, CONTENT), lambda key: store.read(key, SHA256), store.remove):
            with pytest.raises(BadKey, match="not a valid artifact key"):
                call(key)


def test_a_prefix_that_could_lead_out_of_the_store_is_refused(store: Store) -> None:
    """Listing follows the rules for keys."""
    for prefix in ("..", "../", "/", "a/../", "\0", "a//"):
        with pytest.raises(BadKey, match="not a valid artifact key"):
            listed(store, prefix)


@given(st.text(st.sampled_from("ab./\\\0\n~-_ ä"), max_size=12))
def test_every_key_is_a_file_below_the_folder(text: str) -> None:
    """Every valid key names a path below the folder, by the rules of the operating system."""
    path = Path(f"/a/folder/{text}")

    assert not is_key(text) or (path.resolve().is_relative_to("/a/folder/") and path.resolve() == path)
    assert not is_key(text) or path.relative_to("/a/folder").as_posix() == text


# --- the choice of a store


@pytest.mark.parametrize("artifacts", [None, "somewhere", "/some/where", "file:///some/where"])
def test_artifacts_without_a_scheme_are_a_folder(artifacts: str | None) -> None:
    """The default is the folder in the home."""
    store = store_of(Settings(home=Path("/home"), artifacts=artifacts))
    expected = {None: "/home/artifacts", "file:///some/where": "/some/where"}.get(artifacts, artifacts)

    assert isinstance(store, FolderStore)
    assert str(store.folder) == expected


@pytest.mark.parametrize(
    ("url", "prefix"),
    [("s3://bucket", ""), ("s3://bucket/", ""), ("S3://bucket/a", "a/"), ("s3://bucket/a/b.c/", "a/b.c/")],
)
def test_a_url_of_s3_is_a_bucket_and_a_prefix(bucket: str, url: str, prefix: str) -> None:
    """The prefix is optional and may end with a slash."""
    store = store_of(Settings(artifacts=url))

    assert isinstance(store, S3Store)
    assert (store.bucket, store.prefix) == ("bucket", prefix)


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///a", "s3://id:secret@bucket/a", "s3://bucket/a?b=c", "s3://bucket/../a"]
)
def test_an_invalid_s3_url_is_refused_at_the_start(bucket: str, url: str) -> None:
    """The message shows the expected form, and no secret part of the URL."""
    with pytest.raises(StorageAway, match="s3://bucket/prefix") as caught:
        store_of(Settings(artifacts=url))
    assert "secret" not in str(caught.value)


def test_the_error_for_an_unknown_scheme_lists_the_known_ones() -> None:
    """The message names the setting too."""
    with pytest.raises(UnknownName, match="CHIFFRE_ARTIFACTS; choose one of: file, s3"):
        store_of(Settings(artifacts="gs://bucket"))


def test_without_boto3_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 belongs to an optional extra."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "worker.artifacts.s3")

    with pytest.raises(StorageAway, match=r"pip install 'chiffre\[s3\]'"):
        store_of(Settings(artifacts="s3://bucket"))


def test_boto3_is_not_loaded_for_a_folder() -> None:
    """boto3 costs a third of a second and tens of megabytes, and may not be installed."""
    modules = "worker.tasks, worker.queue, worker.local, api.main, api.cli.app"
    made = "from worker.artifacts.store import store_of; from worker.settings import settings; store_of(settings())"
    program = f"import sys, {modules}; {made}; print([m for m in ('boto3', 'botocore', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.strip() == "[]"


# --- a folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "chiffre-test", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_reported_and_leaves_no_partial_object(small_disk: Path) -> None:
    """A failed write leaves neither an object nor a temporary file, and a smaller write succeeds."""
    store = FolderStore(small_disk)
    store.write("job/1", CONTENT)
    with pytest.raises(StorageFull, match=r"no room for job/2 \(No space left on device\)"):
        store.write("job/2", bytes(2 << 20))
    after = [path.name for path in small_disk.rglob("*") if path.is_file()]
    saved = store.write("job/3", CONTENT * 50)

    assert after == ["1"]
    assert store.read("job/3", saved.sha256) == CONTENT * 50


def test_a_file_size_limit_is_reported_and_leaves_no_partial_object(tmp_path: Path) -> None:
    """A write that reaches the file size limit of the process behaves as on a full disk."""
    program = f"""
from pathlib import Path
from worker.artifacts.folder import FolderStore
FolderStore(Path({str(tmp_path)!r})).write("job/1", bytes(10_000))
"""
    limit: Callable[[], None] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, preexec_fn=limit, check=False
    )

    assert done.returncode == 1
    assert "worker.errors.StorageFull: there is no room for job/1 (File too large)" in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    """If a file is in the place of the folder, the storage counts as unavailable, not as full."""
    (tmp_path / "artifacts").write_bytes(b"")
    store = FolderStore(tmp_path / "artifacts")

    with pytest.raises(StorageAway, match="refuses job/1"):
        store.write("job/1", CONTENT)
    assert not list(store.keys())


def test_an_unreadable_disk_is_unavailable_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read error may be temporary, so the message does not advise training again."""

    def fail(path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    store = FolderStore(tmp_path)
    store.write(KEY, CONTENT)
    monkeypatch.setattr(Path, "read_bytes", fail)

    with pytest.raises(StorageAway, match="Input/output error"):
        store.read(KEY, SHA256)


def test_temporary_files_of_a_crash_can_be_found_and_removed(tmp_path: Path) -> None:
    """They are listed by name; links, folders and invalid names are ignored."""
    store = FolderStore(tmp_path / "artifacts")
    store.write("job/1", CONTENT)
    (tmp_path / "artifacts/job/.tmp_x9a").write_bytes(CONTENT[:7])
    (tmp_path / "artifacts/job/some file").write_bytes(b"")
    (tmp_path / "artifacts/job/link").symlink_to(tmp_path)
    (tmp_path / "artifacts/file").symlink_to("/etc/hostname")

    assert set(listed(store)) == {"job/1", "job/.tmp_x9a"}
    store.remove("job/.tmp_x9a")
    assert listed(store) == ["job/1"]


def test_a_killed_writer_leaves_only_complete_objects(tmp_path: Path) -> None:
    """At any moment of the kill, an object is complete or absent."""
    program = f"""
import hashlib, itertools, os
from pathlib import Path
from worker.artifacts.folder import FolderStore
store = FolderStore(Path({str(tmp_path)!r}))
for number in itertools.count():
    content = os.urandom(4_000_000)
    store.write(f"job/{{number}}.{{hashlib.sha256(content).hexdigest()}}", content)
    print(number, flush=True)
"""
    store = FolderStore(tmp_path)
    for seconds in (0.0, 0.07, 0.16):
        writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
        assert writer.stdout is not None
        writer.stdout.readline()  # the first object is complete
        sleep(seconds)  # the kill comes at different moments of a later write
        writer.kill()
        writer.wait()
        writer.stdout.close()
        found = [key for key in listed(store) if "/." not in key]

        assert found
        assert all(len(store.read(key, key.split(".")[1])) == 4_000_000 for key in found)
        for key in listed(store):
            store.remove(key)


# --- S3

OPERATIONS: dict[str, Callable[[Store], Any]] = {
    "write": lambda store: store.write("job/new", CONTENT),
    "read": lambda store: store.read(KEY, SHA256),
    "pieces": lambda store: list(store.pieces(KEY, SHA256)),
    "remove": lambda store: store.remove(KEY),
    "keys": lambda store: list(store.keys()),
}
operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def _store(bucket: str, silence: float = 5, attempts: int = 4) -> S3Store:
    return S3Store(bucket, "prefix/", silence, attempts)


def test_several_stores_share_a_bucket(bucket: str) -> None:
    """Each store sees only objects under its own prefix."""
    one, other = S3Store(bucket, "a/"), S3Store(bucket, "ab/")
    one.write(KEY, CONTENT)
    other.write(KEY, b"other")

    assert listed(one) == listed(other) == [KEY]
    assert one.read(KEY, SHA256) == CONTENT
    assert set(listed(S3Store(bucket))) == {f"a/{KEY}", f"ab/{KEY}"}


def test_objects_with_invalid_names_are_not_listed(bucket: str) -> None:
    """They may be in the bucket, but no store wrote them."""
    for name in ("prefix/", "prefix/a folder/", "prefix/ä", "prefix/a/../b"):
        BACKEND.put_object(bucket, name, b"")
    _store(bucket).write(KEY, CONTENT)

    assert listed(_store(bucket)) == [KEY]


def test_a_long_list_is_read_to_its_end(bucket: str) -> None:
    """S3 returns a thousand names per answer."""
    names = {f"job/{number}" for number in range(2100)}
    for name in names:
        BACKEND.put_object(bucket, f"prefix/{name}", b"")

    assert set(listed(_store(bucket))) == names


def test_a_write_has_its_hash_and_its_condition(bucket: str, faulty: Meddler) -> None:
    """S3 checks the hash of the content, and does not replace an object."""
    _store(bucket).write(KEY, CONTENT)
    ((method, headers),) = faulty.seen

    assert method == "PUT"
    assert b64decode(headers["x-amz-checksum-sha256"]).hex() == SHA256
    assert headers["If-None-Match"] == "*"


@pytest.mark.long
@operations
@pytest.mark.parametrize(
    "faults",
    [[refuse(500, "InternalError")] * 3, [refuse(503, "SlowDown"), refuse(502, "x")], [lose], [lambda _: None]],
    ids=["500", "503 and 502", "the answer is lost", "no answer"],
)
def test_a_temporary_fault_is_retried(
    bucket: str, faulty: Meddler, operation: Callable[[Store], Any], faults: list[Fault]
) -> None:
    """The caller sees no error if a later attempt succeeds."""
    store = _store(bucket, silence=1)
    store.write(KEY, CONTENT)
    faulty.faults = list(faults)
    operation(store)

    assert not faulty.faults
    assert len(faulty.seen) >= 2 + len(faults)


def test_after_a_lost_answer_the_object_exists_once(bucket: str, faulty: Meddler) -> None:
    """The second attempt finds the object of the first attempt, which counts as success."""
    faulty.faults = [lose]
    saved = _store(bucket).write(KEY, CONTENT)

    assert [method for method, _ in faulty.seen] == ["PUT", "PUT", "GET"]
    assert _store(bucket).read(KEY, saved.sha256) == CONTENT


@pytest.mark.long
@operations
@pytest.mark.parametrize("fault", [refuse(500, "InternalError"), refuse(503, "SlowDown"), lose, stall])
def test_a_lasting_fault_ends_as_unavailable_storage(
    bucket: str, faulty: Meddler, operation: Callable[[Store], Any], fault: Fault
) -> None:
    """The error comes after a limited number of attempts, each with a time limit."""
    store = _store(bucket, silence=0.3, attempts=2)
    store.write(KEY, CONTENT)
    faulty.always = fault
    before = monotonic()
    with pytest.raises(StorageAway, match=bucket):
        operation(store)

    assert monotonic() - before < 5


@pytest.mark.parametrize("fault", [cut, hang])
@pytest.mark.parametrize("name", ["read", "pieces", "keys"])
def test_a_truncated_answer_is_an_error(bucket: str, faulty: Meddler, name: str, fault: Fault) -> None:
    """It counts neither as a damaged object nor as a complete list."""
    store = _store(bucket, silence=0.3, attempts=2)
    store.write(KEY, CONTENT)
    faulty.always = fault

    with pytest.raises(StorageAway, match=bucket):
        OPERATIONS[name](store)


@pytest.mark.parametrize(
    ("name", "fault"),
    [("write", babble), ("read", babble), ("pieces", babble), ("keys", babble), ("write", nod), ("read", nod)],
)
def test_another_server_is_not_mistaken_for_s3(bucket: str, faulty: Meddler, name: str, fault: Fault) -> None:
    """A server that answers 200 to everything has stored nothing, and its content is not a damaged object."""
    store = _store(bucket)
    faulty.always = fault

    with pytest.raises(StorageAway, match=bucket):
        OPERATIONS[name](store)


@pytest.mark.parametrize("silence", [0.2, 1.0])
def test_a_stalled_request_ends_after_its_timeouts(bucket: str, faulty: Meddler, silence: float) -> None:
    """Two attempts take little more than two timeouts."""
    faulty.always = stall
    before = monotonic()
    with pytest.raises(StorageAway):
        _store(bucket, silence, attempts=2).write(KEY, CONTENT)

    assert 2 * silence <= monotonic() - before < 2 * silence + 1.5


def test_a_slow_upload_does_not_time_out(bucket: str, faulty: Meddler) -> None:
    """An upload may take longer than the timeout as long as bytes keep flowing."""
    faulty.always = dawdle
    before = monotonic()
    _store(bucket, silence=1, attempts=1).write(KEY, bytes(16_000_000))

    assert monotonic() - before > 1.5


@operations
def test_an_address_without_a_server_is_unavailable(
    bucket: str, monkeypatch: pytest.MonkeyPatch, operation: Callable[[Store], Any]
) -> None:
    """The error comes at once and names the address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    before = monotonic()
    with pytest.raises(StorageAway, match=r"127\.0\.0\.1:9"):
        operation(_store(bucket))

    assert monotonic() - before < 5


def test_an_endpoint_that_is_no_url_is_refused_at_the_start(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "minio:9000")

    with pytest.raises(StorageAway, match="AWS_ENDPOINT_URL_S3"):
        _store(bucket)


@pytest.mark.parametrize(
    "fault",
    [
        refuse(507, "XMinioStorageFull"),
        refuse(507, "whatever"),
        refuse(403, "QuotaExceeded"),
        refuse(400, "XMinioAdminBucketQuotaExceeded"),
        refuse(507, "InsufficientStorage"),
    ],
)
def test_a_full_bucket_is_reported(bucket: str, faulty: Meddler, fault: Fault) -> None:
    """The error codes of several kinds of storage are known, and there is no second attempt."""
    faulty.always = fault
    with pytest.raises(StorageFull, match=f"no room for {KEY}"):
        _store(bucket).write(KEY, CONTENT)
    faulty.always = hand_on

    assert len(faulty.seen) == 1
    assert not list(_store(bucket).keys())


def test_a_write_waits_for_a_concurrent_attempt(bucket: str, faulty: Meddler, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store waits for the end of a short conflict; a lasting one counts as unavailable storage."""
    monkeypatch.setattr("worker.artifacts.s3.CONFLICT_PAUSES", (0.01, 0.02, 0.03))
    faulty.faults = [refuse(409, "ConditionalRequestConflict")] * 2
    saved = _store(bucket).write(KEY, CONTENT)
    faulty.always = refuse(409, "ConditionalRequestConflict")

    assert saved.sha256 == SHA256
    with pytest.raises(StorageAway, match="ConditionalRequestConflict"):
        _store(bucket).write(f"{KEY}.onnx", CONTENT)


def test_storage_without_conditional_writes_works_too(bucket: str, faulty: Meddler) -> None:
    """No object is overwritten, because every key is new."""
    faulty.faults = [refuse(501, "NotImplemented")]
    saved = _store(bucket).write(KEY, CONTENT)

    assert ["If-None-Match" in headers for _, headers in faulty.seen] == [True, False]
    assert _store(bucket).read(KEY, saved.sha256) == CONTENT


@operations
def test_a_missing_bucket_is_reported(bucket: str, operation: Callable[[Store], Any]) -> None:
    """The message names the bucket and says what to do."""
    with pytest.raises(StorageAway, match=r"no-such-bucket answers NoSuchBucket.*correct CHIFFRE_ARTIFACTS"):
        operation(S3Store("no-such-bucket"))


@contextmanager
def _asking_who_it_is(s3: str) -> Iterator[None]:
    """Let moto's server check credentials, which it does not do by default."""
    for allowed in ("0", "inf"):
        request = Request(f"{s3}/moto-api/reset-auth", allowed.encode(), {"Content-Type": "text/plain"})
        urlopen(request).close()
        if allowed == "0":
            yield


@operations
def test_wrong_credentials_are_reported(s3: str, bucket: str, operation: Callable[[Store], Any]) -> None:
    """The message names the variables to check, but not their values."""
    store = _store(bucket)
    with _asking_who_it_is(s3), pytest.raises(StorageAway, match="AWS_ACCESS_KEY_ID") as caught:
        operation(store)

    assert KEY_ID not in str(caught.value)
    assert SECRET not in str(caught.value)


@operations
def test_missing_credentials_are_reported(
    bucket: str, operation: Callable[[Store], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes at once, without a request."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(StorageAway, match="credentials"):
        operation(_store(bucket))
