"""Reads the settings from the environment; an error names each wrong variable, its value and what it takes."""

import os
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from godoty_service.settings.settings import Settings
from godoty_service.settings.types import Form
from godoty_service.telemetry.log_redaction import mask_text

PREFIX = "GODOTY_"
_TYPO = 2  # letters by which a name may differ to count as a typing error
_SHORT = 10  # characters of a value that is not the number it should be: a longer one may be a secret
_LONGEST_SHOWN = 100  # characters
_NUMBER = re.compile(r"[-+]?[0-9._]{1,20}(e[-+]?[0-9]{1,4})?", re.IGNORECASE)

# Variables of the clients, the tests and `godoty dev`, and those that Kubernetes sets for a service named "godoty".
_OTHERS = re.compile(
    r"GODOTY_(API_KEY|ADMIN_KEY|TEST_.+|PORT|(.+_)?SERVICE_(HOST|PORT(_.+)?)|(.+_)?PORT_[0-9]+_(TCP|UDP|SCTP)(_.+)?)"
)
_LINKED_PORT = re.compile(r"GODOTY_.+_PORT")
_LINK = re.compile(r"(tcp|udp|sctp)://.+")


class WrongSettings(ValueError):
    """The environment has wrong settings; each line of the text names a variable, its value and what it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The settings of the environment.

    Attributes:
        settings: The settings.
        unknown: Names of variables with our prefix that are no settings.
    """

    settings: Settings
    unknown: tuple[str, ...]


def read_environment() -> Environment:
    """Read the settings.

    Raises:
        WrongSettings: A value is wrong, or the name of a variable is within two letters of a setting's.
    """
    names = {variable(name): name for name in Settings.model_fields}
    unknown = [name for name, value in sorted(os.environ.items()) if _is_unknown(name.upper(), value, names)]
    lines = [line for name in unknown if (line := _typo(name, names)) is not None]
    try:
        settings = Settings()
    except ValidationError as error:
        lines += _lines(error, {variable: Settings.model_fields[name] for variable, name in names.items()})
        raise WrongSettings("\n".join(lines)) from None  # the cause may hold a secret
    if lines:
        raise WrongSettings("\n".join(lines))
    return Environment(settings=settings, unknown=tuple(unknown))


def variable(name: str) -> str:
    """Return the name of the variable of a setting."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else PREFIX + name.upper()


def _is_unknown(name: str, value: str, known: Mapping[str, str]) -> bool:
    if not name.startswith(PREFIX) or name in known or _OTHERS.fullmatch(name):
        return False
    return not (_LINKED_PORT.fullmatch(name) and _LINK.fullmatch(value))


def _typo(name: str, known: Mapping[str, str]) -> str | None:
    near = min(known, key=lambda each: edit_distance(name.upper(), each))
    if edit_distance(name.upper(), near) > _TYPO:
        return None
    return f"{name}: no such setting, takes the name {near}; or unset it."


def edit_distance(first: str, second: str) -> int:
    """Return the number of letters to insert, delete, replace or swap with the next one to turn one into the other."""
    if abs(len(first) - len(second)) > _TYPO:
        return _TYPO + 1
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        older, before, row = before, row, [i]
        for j, other in enumerate(second, start=1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                row[j] = min(row[j], older[j - 2] + 1)
    return row[-1]


def _lines(error: ValidationError, fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    """Yield a line for each error."""
    for detail in error.errors(include_url=False):
        if not detail["loc"]:  # a contradiction between several settings
            yield from str(detail["ctx"]["error"]).splitlines()
            continue
        place = str(detail["loc"][0])
        name = place if place in fields else PREFIX + place.upper()
        field = fields[name]
        got = _shown(detail["input"], field)
        yield f"{name}: got {got}, takes {takes(field)}. {field.description}"


def takes(field: FieldInfo) -> str:
    """Return a description of the values that a setting takes."""
    parts = list(_parts(field.annotation))
    for part in (*field.metadata, *parts):
        if isinstance(part, Form):
            return part.takes
    choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
    if choices:
        return "one of " + ", ".join(choices)
    if bool in parts:
        return "true or false"
    kind = "a whole number" if int in parts else "a number"
    bounds = {type(each): each for each in field.metadata}
    least, most = bounds.get(Ge), bounds.get(Le)
    if isinstance(least, Ge) and isinstance(most, Le):
        return f"{kind} from {least.ge} to {most.le}"
    return "the path of a file" if Path in parts else "a text"


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation is made of, and their metadata."""
    yield annotation
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        for each in get_args(annotation):
            yield from _parts(each)


def _shown(value: Any, field: FieldInfo) -> str:
    """Return a wrong value as text; if it may be a secret, only its length."""
    text = str(value.get_secret_value() if isinstance(value, SecretStr) else value)
    forms = [each for each in (*field.metadata, *_parts(field.annotation)) if isinstance(each, Form)]
    if not text:
        return "an empty value"
    if any(form.secret for form in forms):
        odd = "" if text.isprintable() and " " not in text else ", with spaces or control characters"
        return f"{len(text)} characters{odd}"
    if not forms and len(text) > _SHORT and not _NUMBER.fullmatch(text):
        return f"{len(text)} characters"
    return repr(mask_text(text[:_LONGEST_SHOWN])) if forms or not _NUMBER.fullmatch(text) else text
