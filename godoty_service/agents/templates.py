"""Templates of system prompts: text with placeholders such as `{{today}}`. Nothing in them is executed.

A placeholder is a name in double braces: `{{today}}` (the date in UTC, such as 2026-03-01), `{{user}}` (the end user
that the request names) or `{{variables.NAME}}` (a variable of the request). Other text in double braces, such as JSON,
is text. What replaces a placeholder is not searched for placeholders again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

VARIABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_PLACEHOLDER = re.compile(r"\{\{\s{0,8}([A-Za-z][A-Za-z0-9_.-]{0,127})\s{0,8}\}\}")
_TODAY, _USER, _VARIABLES = "today", "user", "variables."
MAX_PLACEHOLDERS = 64  # bounds what a short text with long values becomes


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateValues:
    """What a request gives to a template.

    Attributes:
        today: The date.
        user: The end user that the request names; None: none.
        variables: The request's variables.
    """

    today: date
    user: str | None
    variables: Mapping[str, str]


class MissingValue(ValueError):
    """A request lacks what a template needs; `field` is the path of the field that would have it."""

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is missing")
        self.field = field


class Template:
    """A text with placeholders, parsed once. A placeholder that only a later build knows stays as it is written."""

    __slots__ = ("_parts",)

    def __init__(self, text: str) -> None:
        # Text and names of placeholders alternate; the first is text.
        self._parts = _PLACEHOLDER.split(text)

    def check(self) -> None:
        """Check that each placeholder has a known name, and that there are not too many.

        Raises:
            ValueError: It is not so; the text says what must be.
        """
        names = self._parts[1::2]
        if len(names) > MAX_PLACEHOLDERS:
            raise ValueError(f"must have at most {MAX_PLACEHOLDERS} placeholders")
        for name in names:
            if not _is_known(name):
                raise ValueError(
                    f"must not have the placeholder {{{{{name}}}}}: there are {{{{today}}}}, {{{{user}}}} and"
                    f" {{{{variables.NAME}}}}, with a NAME of {VARIABLE_NAME.pattern}"
                )

    def render(self, values: TemplateValues) -> str:
        """Return the text with values in place of the placeholders.

        Raises:
            MissingValue: A value is missing.
        """
        rendered = [*self._parts]
        rendered[1::2] = [_value(name, values) for name in self._parts[1::2]]
        return "".join(rendered)


def _is_known(name: str) -> bool:
    if name.startswith(_VARIABLES):
        return VARIABLE_NAME.fullmatch(name.removeprefix(_VARIABLES)) is not None
    return name in (_TODAY, _USER)


def _value(name: str, values: TemplateValues) -> str:
    if name == _TODAY:
        return values.today.isoformat()
    if name == _USER:
        if not values.user:
            raise MissingValue("user")
        return values.user
    if not _is_known(name):
        return f"{{{{{name}}}}}"
    found = values.variables.get(name.removeprefix(_VARIABLES))
    if found is None:
        raise MissingValue(name)
    return found
