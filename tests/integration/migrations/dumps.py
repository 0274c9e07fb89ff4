"""Databases of schemas 0 and 1, made by builds of these (tests/data/schema/README.md)."""

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import bson
from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.database import Database

_FOLDER = Path(__file__).parents[2] / "data" / "schema"
BUILDS = ("34cb0c6", "313f0b1")
SCHEMA_1 = "e7c6548"  # the last build of schema 1, with end users
Document = dict[str, Any]


def restore(build: str, database: Database[Document]) -> None:
    """Write the documents and indexes that a build left."""
    for part in bson.decode_all(gzip.decompress((_FOLDER / build / "dump.bson.gz").read_bytes())):
        collection = database.create_collection(part["collection"])
        write(collection, part["documents"], part["indexes"])


def write(collection: Collection[Document], documents: list[Document], indexes: Iterable[Mapping[str, Any]]) -> None:
    """Write documents and indexes; the indexes first, since a build of one takes long."""
    if models := [_model(each) for each in indexes if each["name"] != "_id_"]:
        collection.create_indexes(models)
    if documents:
        collection.insert_many(documents)


def _model(index: Mapping[str, Any]) -> IndexModel:
    options = {name: value for name, value in index.items() if name not in ("key", "name", "v")}
    return IndexModel([(key, int(direction)) for key, direction in index["key"].items()], **options)


def figures(build: str) -> Document:
    """Return what that build reported of the database."""
    found: Document = json.loads((_FOLDER / build / "figures.json").read_text())
    return found


def known_part(new: Any, old: Any) -> Any:
    """Return the fields of a report that an older build's report has, too."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {name: known_part(new[name], old[name]) for name in old if name in new}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [known_part(*pair) for pair in zip(new, old, strict=True)]
    return new
