"""An output schema: checked and compiled once, with the form that models get, and the check of their answers."""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import jsonschema_rs

from godoty_service import exact_json
from godoty_service.agents.output.limits import (
    MAX_OUTPUT_CHARACTERS,
    MAX_OUTPUT_VALUES,
    MAX_SCHEMA_CHARACTERS,
    MAX_SCHEMA_VALUES,
    Size,
    measure,
)
from godoty_service.agents.output.sent_form import VALUE, is_guaranteed, is_wrapped, sent_schema
from godoty_service.agents.output.structure import Structure, Subschema
from godoty_service.agents.output.weight import Weight
from godoty_service.agents.output.work import is_bounded, is_explained

_DIALECT: Final = re.compile(r"https?://json-schema\.org/draft/2020-12/schema#?")
_MAX_REASON: Final = 500  # characters
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1024 * 1024, dfa_size_limit=1024 * 1024)  # linear in the text
_FENCE: Final = re.compile(r"\s*```[a-zA-Z]*\s*\n(.*)\n\s*```\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """An answer that was checked: exactly one field is set.

    Attributes:
        output: The valid value, as compact JSON with the model's numbers.
        fault: Why the answer is not valid, for the model.
    """

    output: str | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSchema:
    """A schema that was checked.

    Attributes:
        text: It as compact JSON, with its members in their order.
        sent: The schema that models get.
        wrapped: Models get it inside an object.
        guaranteed: Providers that enforce schemas can enforce this one.
        root: Its structure.
        weights: What the check of a value takes at most at one place of each level.
        heaviest_number: The highest `number_weight` in it.
        validator: Checks values.
    """

    text: str
    sent: dict[str, Any]
    wrapped: bool
    guaranteed: bool
    root: Subschema = field(repr=False, compare=False)  # its parts may refer to one another
    weights: tuple[Weight, ...] = field(repr=False)
    heaviest_number: int
    validator: jsonschema_rs.Draft202012Validator

    @classmethod
    def parse(cls, text: str) -> "OutputSchema":
        """Check and compile a schema.

        Raises:
            ValueError: It is none, or exceeds a bound; the text says what must be, for the one who wrote it.
        """
        if len(text) > MAX_SCHEMA_CHARACTERS:
            raise ValueError(f"must have at most {MAX_SCHEMA_CHARACTERS} characters")
        try:
            schema = exact_json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("must be a JSON Schema as JSON text") from None
        if not isinstance(schema, (dict, bool)):
            raise ValueError("must be a JSON Schema: an object or a boolean")  # noqa: TRY004 - a caller's fault
        size = measure(schema, max_values=MAX_SCHEMA_VALUES)
        if isinstance(schema, dict) and "$schema" in schema and not _is_dialect(schema["$schema"]):
            raise ValueError("must be of JSON Schema 2020-12, or have no $schema")
        structure = Structure(schema)
        weights = structure.weights()
        sent = sent_schema(json.loads(exact_json.dumps(schema)))
        return cls(
            text=exact_json.dumps(schema),
            sent=sent,
            wrapped=is_wrapped(schema),
            guaranteed=is_guaranteed(sent),
            root=structure.root,
            weights=tuple(weights),
            heaviest_number=size.heaviest,
            validator=_compiled(schema),
        )

    @property
    def sent_bytes(self) -> int:
        """About the bytes that it takes in a request."""
        return len(self.text.encode("utf-8", "replace"))

    def check(self, answer: str) -> CheckedAnswer:
        """Check an answer: JSON of the form that the model was asked for, perhaps in a code block."""
        try:
            value, size = self._read(answer)
        except ValueError as error:
            return CheckedAnswer(fault=f"it {error}")
        fault = self._fault(value, size)
        return CheckedAnswer(fault=fault) if fault is not None else CheckedAnswer(output=exact_json.dumps(value))

    def matches(self, text: str) -> bool | None:
        """Return whether a value as JSON is valid by the schema itself; None: it is too large to be checked."""
        try:
            value = exact_json.loads(text)
            size = measure(value, max_values=MAX_OUTPUT_VALUES)
        except (ValueError, RecursionError):
            return None
        if not is_bounded(self.root, self.weights, value, size, heaviest_number=self.heaviest_number):
            return None
        return self.validator.is_valid(exact_json.exact(value))

    def _read(self, answer: str) -> tuple[Any, Size]:
        """Return the value of an answer, and its size.

        Raises:
            ValueError: It has none that can be checked; the text says what it must be.
        """
        if len(answer) > MAX_OUTPUT_CHARACTERS:
            raise ValueError(f"must have at most {MAX_OUTPUT_CHARACTERS:,} characters")
        fenced = _FENCE.fullmatch(answer)
        try:
            value = exact_json.loads(fenced[1] if fenced else answer)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"must be JSON: {str(error)[:_MAX_REASON]}") from None
        size = measure(value, max_values=MAX_OUTPUT_VALUES)
        if self.wrapped:
            if not isinstance(value, dict) or value.keys() != {VALUE}:
                raise ValueError(f'must be an object with the one member "{VALUE}"')
            value, size = value[VALUE], size.inside()
        try:
            length = len(exact_json.dumps(value).encode())
        except UnicodeEncodeError:
            raise ValueError("must not have half of a surrogate pair in a string") from None
        if length > MAX_OUTPUT_CHARACTERS:
            raise ValueError(f"must have at most {MAX_OUTPUT_CHARACTERS:,} bytes")
        return value, size

    def _fault(self, value: Any, size: Size) -> str | None:
        """Return why a value is not valid; None: it is."""
        if not is_bounded(self.root, self.weights, value, size, heaviest_number=self.heaviest_number):
            return "it is too large, or nested too deeply, to be checked by the schema"
        instance = exact_json.exact(value)
        if self.validator.is_valid(instance):
            return None
        if not is_explained(self.weights, size):
            return "it does not match the schema"
        try:
            self.validator.validate(instance)
        except jsonschema_rs.ValidationError as error:
            place = "".join(f"/{each}" for each in error.instance_path)[:_MAX_REASON]
            return f"it does not match the schema at {place or 'its root'}: {error.message[:_MAX_REASON]}"
        return "it does not match the schema"


def _compiled(schema: Any) -> jsonschema_rs.Draft202012Validator:
    """Compile a schema whose structure was checked.

    Raises:
        ValueError: A keyword has a value that it cannot have, or a pattern is no regular expression.
    """
    if isinstance(schema, dict):
        schema = {name: value for name, value in schema.items() if name not in ("$id", "$schema")}
    try:
        return jsonschema_rs.Draft202012Validator(
            exact_json.dumps(schema), validate_formats=False, retriever=_refuse, pattern_options=_PATTERNS
        )
    except jsonschema_rs.ValidationError as error:
        place = "".join(f"/{each}" for each in error.instance_path)[:100]
        raise ValueError(f"must be a JSON Schema of 2020-12: #{place}: {error.message[:_MAX_REASON]}") from None
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        raise ValueError(f"must be a JSON Schema of 2020-12: {str(error)[:_MAX_REASON]}") from None


def _is_dialect(value: Any) -> bool:
    return isinstance(value, str) and _DIALECT.fullmatch(value) is not None


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"{uri[:100]} is not part of the schema")
