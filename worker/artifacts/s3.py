"""The store of artifacts in S3, or in any storage with the same protocol.

boto3 reads credentials, endpoint and region from AWS's own variables, files and roles. Only worker.artifacts.store
imports this module, and only if S3 is configured.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from time import sleep
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from ml.artifacts import Saved
from ml.errors import CheckpointError
from worker.artifacts.keys import PIECE, check_key, check_prefix, is_key, missing, verified, verified_pieces
from worker.errors import BadKey, StorageAway, StorageFull

SILENCE_SECONDS = 10.0  # without a byte from the server until an attempt is abandoned
ATTEMPTS = 4  # to send a request, if the server does not answer or a transient error occurs
CONFLICT_PAUSES = (0.1, 0.5, 2.0)  # seconds; the server still processes an earlier attempt at the same object

FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}
REFUSED = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they are allowed to do"
ADVICE = {
    "NoSuchBucket": "create the bucket, or correct CHIFFRE_ARTIFACTS",
    "AccessDenied": REFUSED,
    "ExpiredToken": REFUSED,
    "InvalidAccessKeyId": REFUSED,
    "SignatureDoesNotMatch": REFUSED,
}


class S3Store:
    """The objects of a bucket whose names start with a prefix."""

    def __init__(
        self, bucket: str, prefix: str = "", silence: float = SILENCE_SECONDS, attempts: int = ATTEMPTS
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        with self._as_storage_errors("any artifact"):
            self._client = _client(silence, attempts)

    @classmethod
    def at(cls, place: str) -> Self:
        """Return the store at "bucket/prefix" or "bucket".

        Raises:
            StorageAway: if `place` is of another form.
        """
        bucket, _, folder = place.partition("/")
        folder = folder.strip("/")
        if not is_key(bucket) or (folder and not is_key(folder)):
            raise StorageAway("CHIFFRE_ARTIFACTS must have the form s3://bucket/prefix; correct it")
        return cls(bucket, f"{folder}/" if folder else "")

    def write(self, key: str, content: bytes) -> Saved:
        check_key(key)
        saved = Saved(hashlib.sha256(content).hexdigest(), len(content))
        with self._as_storage_errors(key):
            try:
                self._create(key, content)
            except ClientError as error:
                match _status(error):
                    case HTTPStatus.PRECONDITION_FAILED:
                        self._compare(key, saved)
                    case HTTPStatus.NOT_IMPLEMENTED:  # no conditional writes here; keys are generated, so they are new
                        self._put(key, content)
                    case _:
                        raise
        return saved

    def read(self, key: str, sha256: str) -> bytes:
        with self._found(check_key(key)) as body:
            content: bytes = body.read()
        return verified(key, content, sha256)

    def pieces(self, key: str, sha256: str) -> Iterator[bytes]:
        return verified_pieces(key, partial(self._pieces, check_key(key)), sha256)

    def remove(self, key: str) -> None:
        check_key(key)
        # S3 itself does not report a missing object here; other servers do.
        with self._as_storage_errors(key), suppress(self._client.exceptions.NoSuchKey):
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def keys(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        start = self.prefix + check_prefix(prefix)
        with self._as_storage_errors(start):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start):
                for entry in page.get("Contents", []):
                    key = entry["Key"].removeprefix(self.prefix)
                    if is_key(key):
                        yield key, entry["LastModified"].timestamp()

    def _pieces(self, key: str) -> Iterator[bytes]:
        with self._found(key) as body:
            yield from body.iter_chunks(PIECE)

    @contextmanager
    def _found(self, key: str) -> Iterator[Any]:
        """Yield the content of an object as a stream; raise CheckpointError if the object does not exist."""
        with self._as_storage_errors(key):
            try:
                yield self._checked(self._client.get_object(Bucket=self.bucket, Key=self.prefix + key))["Body"]
            except self._client.exceptions.NoSuchKey as error:
                raise missing(key) from error

    def _create(self, key: str, content: bytes) -> None:
        """Store an object under a new key.

        Raises:
            ClientError: with status 412, if the key exists.
        """
        for pause in CONFLICT_PAUSES:
            try:
                return self._put(key, content, IfNoneMatch="*")
            except ClientError as error:
                if _status(error) != HTTPStatus.CONFLICT:
                    raise
            sleep(pause)
        return self._put(key, content, IfNoneMatch="*")

    def _put(self, key: str, content: bytes, **condition: str) -> None:
        answer = self._client.put_object(
            Bucket=self.bucket,
            Key=self.prefix + key,
            Body=content,
            ChecksumSHA256=b64encode(hashlib.sha256(content).digest()).decode(),
            **condition,
        )
        self._checked(answer)

    def _compare(self, key: str, saved: Saved) -> None:
        """Check that the key already holds this content, because the answer to an earlier attempt may have been lost.

        Raises:
            BadKey: if it holds different content.
        """
        try:
            self.read(key, saved.sha256)
        except CheckpointError as error:
            raise BadKey(f"{key} already holds different content; please report this as a bug") from error

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer that S3 gave.

        Raises:
            StorageAway: if it has no ETag, because then a proxy or another server has answered 200.
        """
        if "ETag" not in answer:
            raise StorageAway(
                f"the server that answers for bucket {self.bucket} is not an S3 server; check AWS_ENDPOINT_URL_S3"
            )
        return answer

    @contextmanager
    def _as_storage_errors(self, key: str) -> Iterator[None]:
        """Turn an error of boto3 into StorageFull or StorageAway."""
        try:
            yield
        except ClientError as error:
            raise self._refusal(error, key) from error
        except (BotoCoreError, ResponseParserError) as error:
            raise StorageAway(f"bucket {self.bucket} cannot be reached for {key}: {error}") from error

    def _refusal(self, error: ClientError, key: str) -> StorageFull | StorageAway:
        code = str(error.response.get("Error", {}).get("Code"))
        if code in FULL or _status(error) == HTTPStatus.INSUFFICIENT_STORAGE:
            return StorageFull(
                f"bucket {self.bucket} has no room for {key} ({code}); free some space or move the artifacts"
            )
        advice = ADVICE.get(code, "try again later or ask the storage's administrator")
        return StorageAway(f"bucket {self.bucket} answers {code} for {key}; {advice}")


def _client(silence: float, attempts: int) -> Any:
    config = Config(
        connect_timeout=silence,
        read_timeout=silence,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # We send and compare SHA-256 ourselves; some servers do not support the checksums that boto3 adds.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.Session().client("s3", config=config)
    except ValueError as error:
        raise StorageAway(f"AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL is not a URL ({error}); correct it") from error


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
