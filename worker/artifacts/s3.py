"""The store of artifacts in S3, or in any storage that speaks its protocol.

Who we are, where it is and which region: boto3 reads that from AWS's own variables, files and roles. Nothing but
worker.artifacts.store imports this module, and only where it is asked for.
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

SILENCE_SECONDS = 10.0  # how long the other side may say nothing before an attempt is given up
ATTEMPTS = 4  # of each request, when none is answered or the answer is an error that may pass
CONFLICT_PAUSES = (0.1, 0.5, 2.0)  # seconds, while an earlier attempt at the same object is still being dealt with

FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}
REFUSED = "look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and at what they are allowed to do"
ADVICE = {
    "NoSuchBucket": "make the bucket, or correct CHIFFRE_ARTIFACTS",
    "AccessDenied": REFUSED,
    "ExpiredToken": REFUSED,
    "InvalidAccessKeyId": REFUSED,
    "SignatureDoesNotMatch": REFUSED,
}


class S3Store:
    """The objects of a bucket whose names begin with a prefix."""

    def __init__(
        self, bucket: str, prefix: str = "", silence: float = SILENCE_SECONDS, attempts: int = ATTEMPTS
    ) -> None:
        self.bucket = bucket
        self.prefix = prefix
        with self._told("anything"):
            self._client = _client(silence, attempts)

    @classmethod
    def at(cls, place: str) -> Self:
        """The store at bucket/prefix; StorageAway where that is no place."""
        bucket, _, folder = place.partition("/")
        folder = folder.strip("/")
        if not is_key(bucket) or (folder and not is_key(folder)):
            raise StorageAway("CHIFFRE_ARTIFACTS is not of the form s3://bucket/prefix; correct it")
        return cls(bucket, f"{folder}/" if folder else "")

    def write(self, key: str, content: bytes) -> Saved:
        check_key(key)
        saved = Saved(hashlib.sha256(content).hexdigest(), len(content))
        with self._told(key):
            try:
                self._create(key, content)
            except ClientError as error:
                match _status(error):
                    case HTTPStatus.PRECONDITION_FAILED:
                        self._compare(key, saved)
                    case HTTPStatus.NOT_IMPLEMENTED:  # storage that knows no conditions; keys are new by their making
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
        # S3 itself answers nothing of the kind where an object is gone; others do.
        with self._told(key), suppress(self._client.exceptions.NoSuchKey):
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def keys(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        start = self.prefix + check_prefix(prefix)
        with self._told(start):
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
        """The content of an object as a stream; CheckpointError where there is none."""
        with self._told(key):
            try:
                yield self._of_s3(self._client.get_object(Bucket=self.bucket, Key=self.prefix + key))["Body"]
            except self._client.exceptions.NoSuchKey as error:
                raise missing(key) from error

    def _create(self, key: str, content: bytes) -> None:
        """Store an object that is new; ClientError with status 412 where there is one."""
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
        self._of_s3(answer)

    def _compare(self, key: str, saved: Saved) -> None:
        """BadKey unless the key holds what was to be written, as it does where the answer to an attempt was lost."""
        try:
            self.read(key, saved.sha256)
        except CheckpointError as error:
            raise BadKey(f"{key} holds something else already; report this") from error

    def _of_s3(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer; StorageAway where it has no ETag: then a proxy, or the wrong server, says that all is well."""
        if "ETag" not in answer:
            raise StorageAway(f"what answers for the bucket {self.bucket} is no S3; look at AWS_ENDPOINT_URL_S3")
        return answer

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Let an error of boto3's be told as one of ours."""
        try:
            yield
        except ClientError as error:
            raise self._answered(error, key) from error
        except (BotoCoreError, ResponseParserError) as error:
            raise StorageAway(f"the bucket {self.bucket} cannot be reached for {key}: {error}") from error

    def _answered(self, error: ClientError, key: str) -> StorageFull | StorageAway:
        code = str(error.response.get("Error", {}).get("Code"))
        if code in FULL or _status(error) == HTTPStatus.INSUFFICIENT_STORAGE:
            return StorageFull(f"the bucket {self.bucket} has no room for {key} ({code}); make some, or move it all")
        advice = ADVICE.get(code, "try again later, or ask who keeps it")
        return StorageAway(f"the bucket {self.bucket} answers {code} for {key}; {advice}")


def _client(silence: float, attempts: int) -> Any:
    config = Config(
        connect_timeout=silence,
        read_timeout=silence,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # Ours are SHA-256, sent and compared by ourselves; not every storage knows those that boto3 adds.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.Session().client("s3", config=config)
    except ValueError as error:
        raise StorageAway(f"AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL is no URL ({error}); correct it") from error


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
