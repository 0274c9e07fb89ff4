"""Finds out why a database cannot be used, by connecting to each host of its address separately."""

import asyncio
import os
import re
from dataclasses import dataclass
from typing import Any

import structlog
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from godoty_service.errors import StorageError, StorageUnavailable
from godoty_service.mongo.client import Database

log = structlog.get_logger(__name__)

_QUIET_SECONDS = 3.0  # before a slow connection is diagnosed
_ERRNO = re.compile(r"\[Errno (\d+)\]")
_HOST_SECONDS = 2.0  # for one host
_TLS_OPTIONS = ("tls", "ssl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Why a database cannot be used.

    Attributes:
        text: The state of each host, as one line without secrets.
        lasting: Whether waiting does not help: each host answers, and none belongs to the replica set of the address.
    """

    text: str
    lasting: bool


async def reach(database: Database, uri: str) -> None:
    """Connect to a database at the start; if that takes more than three seconds, log why.

    Raises:
        StorageError: The database cannot be used. The text names each host of its address and the cause.
    """
    ping = asyncio.create_task(database.ping())
    try:
        if not (await asyncio.wait({ping}, timeout=_QUIET_SECONDS))[0]:
            found = await diagnose(uri)
            log.warning("waiting_for_database", cause=found.text)
            if found.lasting:
                raise StorageUnavailable(_message(found.text))
        await ping
    except StorageError as error:
        refusal = error.__cause__ if isinstance(error.__cause__, OperationFailure) else None
        cause = _short(refusal) if refusal is not None else (await diagnose(uri)).text
        raise type(error)(_message(cause)) from error
    finally:
        ping.cancel()


def _message(cause: str) -> str:
    return f"The database cannot be used: {cause}. Its address is set by GODOTY_MONGODB_URI."


async def diagnose(uri: str) -> Diagnosis:
    """Return the state of each host of a MongoDB address."""
    try:
        parsed = await asyncio.to_thread(parse_uri, uri)  # it may ask the DNS
    except PyMongoError as error:
        return Diagnosis(text=_short(error), lasting=False)
    wanted = parsed["options"].get("replicaSet")
    tls = {name: value for name, value in parsed["options"].items() if name.startswith(_TLS_OPTIONS)}
    found = await asyncio.gather(*(_diagnose_host(host, port, wanted, tls) for host, port in parsed["nodelist"]))
    return Diagnosis(text="; ".join(each.text for each in found), lasting=all(each.lasting for each in found))


async def _diagnose_host(host: str, port: int | None, wanted: str | None, tls: dict[str, Any]) -> Diagnosis:
    milliseconds = int(_HOST_SECONDS * 1000)
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        host,
        port,
        directConnection=True,
        serverSelectionTimeoutMS=milliseconds,
        connectTimeoutMS=milliseconds,
        **tls,
    )
    name = host if port is None else f"{host}:{port}"
    try:
        hello = await client.admin.command("hello")
    except PyMongoError as error:
        return Diagnosis(text=f"{name}: {_short(error).removeprefix(f'{name}: ')}", lasting=False)
    finally:
        await client.close()
    state, lasting = _state(hello, wanted)
    return Diagnosis(text=f"{name}: {state}", lasting=lasting)


def _state(hello: dict[str, Any], wanted: str | None) -> tuple[str, bool]:
    """Return why a server that answers cannot be used, and whether waiting does not help."""
    name = hello.get("setName")
    if hello.get("isreplicaset"):
        return "its replica set is not initiated: run rs.initiate() there", False
    if name is None:
        return "it is in no replica set: start it with --replSet, then run rs.initiate() there", wanted is not None
    if wanted is not None and name != wanted:
        return f"its replica set is named {name}, and the address says replicaSet={wanted}", True
    if not hello.get("isWritablePrimary") and not hello.get("primary"):
        return f"its replica set {name} has no primary now", False
    return f"it answers, as a member of {name}", False


def _short(error: PyMongoError) -> str:
    """Return the system's text for a failed connection, otherwise the first sentence of the driver's."""
    text = str(error)
    if number := _ERRNO.search(text):
        return os.strerror(int(number[1]))
    return text.partition(" (configured timeouts")[0].partition(", full error:")[0].partition(", Timeout:")[0]
