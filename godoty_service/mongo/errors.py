"""Translates the MongoDB driver's errors into ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WTimeoutError,
)

from godoty_service.errors import DuplicateKey, SnapshotLost, StorageError, StorageUnavailable

# Codes of a server that is stepping down, starting or stopping: a retry may succeed.
_TRANSIENT_CODES = frozenset({6, 7, 50, 64, 89, 91, 134, 189, 202, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436})
# A snapshot that is too old, or was closed by an index build: a new one can be read.
_SNAPSHOT_CODES = frozenset({239, 246})
DUPLICATE_KEY = 11_000
_UNREACHABLE = (
    AutoReconnect,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WTimeoutError,
)
# A value that BSON cannot encode: it is never sent, and no retry helps.
UNWRITABLE = (BSONError, OverflowError, UnicodeEncodeError)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate the driver's errors, once, where they enter.

    Raises:
        DuplicateKey: A unique index refused a write.
        SnapshotLost: A snapshot can no longer be read.
        StorageUnavailable: No primary, no connection, or a timeout.
        StorageError: Anything else.
    """
    try:
        yield
    except (PyMongoError, *UNWRITABLE) as error:
        raise translation(error) from error


def translation(error: Exception) -> StorageError:
    """Return our error for one of the driver's."""
    if isinstance(error, DuplicateKeyError):
        return DuplicateKey("The document exists already.")
    if isinstance(error, UNWRITABLE):
        return StorageError("The database cannot hold a value.")
    code = error.code if isinstance(error, OperationFailure) else None
    if code in _SNAPSHOT_CODES:
        return SnapshotLost("The database cannot be reached just now.")
    again = isinstance(error, OperationFailure) and error.has_error_label("RetryableWriteError")
    late = isinstance(error, PyMongoError) and error.timeout
    if isinstance(error, _UNREACHABLE) or code in _TRANSIENT_CODES or again or late:
        return StorageUnavailable("The database cannot be reached just now.")
    return StorageError("The database refused an operation.")


def duplicates(error: OperationFailure) -> list[int]:
    """Return the indexes of the documents that a unique index refused, if nothing else failed.

    Raises:
        OperationFailure: Something else failed: the error itself.
    """
    details = error.details or {}
    refused = details.get("writeErrors", [])
    if not refused or details.get("writeConcernErrors") or any(each.get("code") != DUPLICATE_KEY for each in refused):
        raise error
    return [each["index"] for each in refused]
