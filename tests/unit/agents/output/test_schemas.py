"""Output schemas: what is refused and how soon, the form in which models get them, and the check of answers."""

import asyncio
import json
import time
from typing import Any

import jsonschema
import pytest

from godoty_service import exact_json
from godoty_service.agents.output.patterns import states
from godoty_service.agents.output.schema import OutputSchema
from godoty_service.agents.output.schemas import OutputSchemas
from openrouter_sandbox.answers.tool_input import sample_value, wrong_value
from tests.support.output_schemas import HOSTILE, SCHEMAS, closed

each_schema = pytest.mark.parametrize("name", SCHEMAS)
each_hostile_schema = pytest.mark.parametrize("name", HOSTILE)


def parse(schema: Any) -> OutputSchema:
    """Parse a schema."""
    return OutputSchema.parse(json.dumps(schema))


def fault_of(schema: Any, answer: str) -> str:
    """Return why an answer is not valid."""
    fault = parse(schema).check(answer).fault
    assert fault is not None
    return fault


@each_schema
def test_answers_are_judged_as_by_the_reference_validator(name: str) -> None:
    """A valid value is returned unchanged, another one is refused with a reason; both by what the model gets."""
    schema = parse(SCHEMAS[name])
    valid, wrong = sample_value(schema.sent), wrong_value(schema.sent)
    reference = jsonschema.Draft202012Validator(schema.sent)
    assert (reference.is_valid(valid), reference.is_valid(wrong)) == (True, False)
    checked = schema.check(json.dumps(valid))

    assert checked.fault is None
    value = json.loads(checked.output or "")
    assert value == (valid["value"] if schema.wrapped else valid)
    assert jsonschema.Draft202012Validator(SCHEMAS[name]).is_valid(value)
    assert schema.check(json.dumps(wrong)).output is None


@each_schema
def test_models_get_a_root_that_is_one_object(name: str) -> None:
    """Providers refuse other roots, and alternatives at the root."""
    sent = parse(SCHEMAS[name]).sent

    assert sent["type"] == "object"
    assert not {"oneOf", "anyOf", "allOf", "enum", "const", "not", "$ref"} & sent.keys()
    jsonschema.Draft202012Validator.check_schema(sent)


def test_sent_schema_is_the_original_otherwise() -> None:
    """Its members, in their order, without what is the server's business."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/a", **closed(a={})}

    assert parse(schema).sent == closed(a={})
    assert parse({"enum": [1]}).sent == closed(value={"enum": [1]})


def test_references_move_with_what_they_refer_to() -> None:
    """In constants they are data, and definitions keep their places."""
    schema = {
        "anyOf": [{"$ref": "#/$defs/a"}, {"items": {"$ref": "#"}}, {"$ref": "#/anyOf/0"}, {"const": {"$ref": "#"}}],
        "$defs": {"a": {"properties": {"$ref": {"$ref": "#/anyOf/1"}}}},
    }
    moved = "#/properties/value"

    assert parse(schema).sent == {
        **closed(
            value={
                "anyOf": [
                    {"$ref": "#/$defs/a"},
                    {"items": {"$ref": moved}},
                    {"$ref": f"{moved}/anyOf/0"},
                    {"const": {"$ref": "#"}},
                ]
            }
        ),
        "$defs": {"a": {"properties": {"$ref": {"$ref": f"{moved}/anyOf/1"}}}},
    }


def test_guarantee_is_asked_for_schemas_that_providers_can_enforce() -> None:
    """Closed objects of required members; not alternatives that exclude one another, nor open objects."""
    guaranteed = {name for name, schema in SCHEMAS.items() if parse(schema).guaranteed}

    assert {"flat", "nested", "definition", "recursive", "recursive root", "union with null"} <= guaranteed
    assert not {"one of two objects", "all of", "additional properties", "tuple", "condition"} & guaranteed


@each_hostile_schema
def test_hostile_schema_is_refused(name: str) -> None:
    """With a text that says what must be, before any work that could hold the server."""
    make, part = HOSTILE[name]
    with pytest.raises(ValueError, match=r".") as caught:
        OutputSchema.parse(make())

    assert part in str(caught.value)
    assert len(str(caught.value)) < 1_000


@each_hostile_schema
async def test_request_with_a_hostile_schema_is_refused(name: str) -> None:
    """As the schema is; `bench.hostile_schemas` measures the time of it."""
    assert (await OutputSchemas().read(HOSTILE[name][0]())).fault is not None


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"type": "integer"}, '{"value": 12345678901234567890123456789}'),
        ({"type": "number"}, '{"value": 0.1000000000000000055511151231257827}'),
        ({"type": "number"}, '{"value": 1.50}'),
        ({"type": "number"}, '{"value": -1E-7}'),
        ({"multipleOf": 0.01}, '{"value": 1234567890123456.78}'),
        ({"const": 0.1}, '{"value": 0.1}'),
        ({"type": "integer"}, '{"value": 2.0}'),
        ({"type": "array"}, '{"value": [1.10,2e0,[],{}]}'),
    ],
)
def test_numbers_stay_as_the_model_wrote_them(schema: Any, answer: str) -> None:
    """No number goes through a float."""
    assert parse(schema).check(answer).output == answer.removeprefix('{"value": ').removesuffix("}")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 0.1}, "0.1000000000000000055511151231257827"),
        ({"maximum": 1}, "1.00000000000000000000000001"),
        ({"type": "integer"}, "1.00000000000000000000000001"),
        ({"multipleOf": 0.01}, "1234567890123456.785"),
        ({"maximum": 9007199254740992}, "9007199254740993"),
    ],
)
def test_numbers_are_compared_exactly(schema: Any, value: str) -> None:
    """What differs only beyond a float's precision differs."""
    assert "schema" in fault_of(schema, f'{{"value": {value}}}')


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        ("", "must be JSON"),
        ("hello", "must be JSON"),
        ('{"value": 1', "must be JSON"),
        ('{"value": NaN}', "must be JSON"),
        ("[" * 5_000, "must be JSON"),
        (f'{{"value": {"[" * 80}{"]" * 80}}}', "nested at most 64"),
        ('{"value": 1e999}', "exponent"),
        (f'{{"value": {"9" * 1_000}}}', "characters"),
        ('{"value": "\\ud800"}', "surrogate"),
        ("1", "the one member"),
        ('{"value": 1, "other": 2}', "the one member"),
        (f'{{"value": {json.dumps([0] * 100_001)}}}', "at most 100,000"),
        (f'{{"value": "{"a" * 1024 * 1024}"}}', "at most 1,048,576"),
        ('{"value": "a"}', "not of type"),
    ],
)
def test_answer_that_is_no_value_is_explained(answer: str, part: str) -> None:
    """The model reads the reason."""
    assert part in fault_of({"type": ["integer", "array"]}, answer)


def test_lenient_forms_are_read() -> None:
    """A code block around the value, and line ends in its texts; a member that is there twice counts once."""
    schema = parse(closed(a={"type": "string"}))

    assert schema.check('```json\n{"a": "b"}\n```').output == '{"a":"b"}'
    assert schema.check('{"a": "b\nc"}').output == '{"a":"b\\nc"}'
    assert schema.check('{"a": 1, "a": "c"}').output == '{"a":"c"}'


def doubling(levels: int) -> Any:
    """Return a schema whose every level applies the next one twice to each item; it refers to none of them again."""
    return {
        "$ref": "#/$defs/a0",
        "$defs": {
            f"a{level}": {"allOf": [{keyword: {"$ref": f"#/$defs/a{level + 1}"}} for keyword in ("items", "contains")]}
            for level in range(levels)
        }
        | {f"a{levels}": {"type": "string"}},
    }


def nested(levels: int, leaf: str = '"a"') -> str:
    """Return an answer of arrays inside one another."""
    return f'{{"value": {"[" * levels}{leaf}{"]" * levels}}}'


def test_value_that_would_take_too_long_is_refused_unchecked() -> None:
    """By a schema that doubles its work at each level, or patterns with many states on long texts."""
    pattern = {"pattern": "(a|b)*a(a|b){200}c"}
    start = time.thread_time()

    assert "too large" in fault_of(doubling(30), nested(30))
    assert "too large" in fault_of(pattern, f'{{"value": "{"ab" * 10_000}"}}')
    assert time.thread_time() - start < 0.5
    assert parse(doubling(5)).check(nested(5)).output == '[[[[["a"]]]]]'
    assert parse(pattern).check(f'{{"value": "{"a" * 300}c"}}').output is not None


def answer_of(pattern: str, count: int) -> str:
    """Return an answer that is an array, each item by a pattern with its number."""
    return '{"value": [' + ",".join(pattern.format(number) for number in range(count)) + "]}"


UNIQUE = {"type": "array", "uniqueItems": True}


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"allOf": [UNIQUE] * 490}, answer_of("{}", 2_000)),
        ({"items": {"allOf": [UNIQUE] * 490}}, answer_of("[{},1,2,3,4,5,6,7,8,9,10,11,12,13,14.5]", 100)),
        (UNIQUE, answer_of("9" * 80 + "{}", 5_000)),
        (UNIQUE, answer_of("{}e308", 5_000)),
        (UNIQUE, answer_of('{{"a": [0.10000000000000000{}]}}', 5_000)),
        ({"items": UNIQUE}, f'{{"value": [{",".join([answer_of("{}.5e-300", 15)[10:-1]] * 1_000)}]}}'),
        ({"items": {"enum": [number + 0.5 for number in range(400)]}}, answer_of("{}.25", 2_000)),
        ({"items": {"not": {"enum": [[1] * 30 + [n] for n in range(90)]}}}, answer_of(f"[{'1,' * 30}-1{{}}]", 2_000)),
        ({"items": {"multipleOf": 1e-300}}, answer_of("{}.5e300", 9_000)),
        ({"items": {"const": [1e-300]}}, answer_of("[{}e-300]", 9_000)),
    ],
)
def test_costly_comparisons_are_refused_unchecked(schema: Any, answer: str) -> None:
    """Of the items of an array with one another, and of long numbers, which are compared exactly."""
    start = time.thread_time()

    assert "too large" in fault_of(schema, answer)
    assert time.thread_time() - start < 0.5


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        (UNIQUE, answer_of("{}", 40_000)),
        (UNIQUE, answer_of('{{"name": "n{0}", "price": {0}.25}}', 3_000)),
        (UNIQUE, answer_of("9" * 80 + "{}", 150)),
        ({"items": {"multipleOf": 0.25, "minimum": 0.25}}, answer_of("{}.25", 2_000)),
        ({"items": {"properties": {"kind": {"enum": ["a", 1.5, None]}}}}, answer_of('{{"kind": 1.5, "n": {}.5}}', 999)),
    ],
)
def test_usual_comparisons_are_made(schema: Any, answer: str) -> None:
    """Of thousands of items, of prices, and of some long numbers."""
    assert parse(schema).check(answer).output is not None


def test_long_text_beside_a_pattern_is_no_work_for_it() -> None:
    """What an estimate by levels cannot say is counted place by place."""
    schema = closed(code={"pattern": "^[A-Z]{2}-[0-9]{400}$"}, text={"type": "string"})
    text = "a" * 200_000

    assert parse(schema).check(json.dumps({"code": "AB-" + "1" * 400, "text": text})).output is not None
    assert "does not match" in fault_of(schema, json.dumps({"code": "AB-1", "text": text}))


def test_recursive_union_is_checked_at_any_depth() -> None:
    """The validator remembers what came of a recursive reference: forty kinds of nodes are no bomb."""
    node = {"$ref": "#/$defs/node"}
    kinds = [closed(kind={"const": f"k{number}"}, left=node, right=node) for number in range(40)]
    schema = {**node, "$defs": {"node": {"oneOf": [{"type": "number"}, *kinds]}}}
    value: Any = 1
    for _ in range(60):
        value = {"kind": "k7", "left": value, "right": 2}
    start = time.thread_time()

    assert parse(schema).check(json.dumps({"value": value})).output is not None
    assert time.thread_time() - start < 0.5
    assert "does not match" in fault_of(schema, json.dumps({"value": {"kind": "k7", "left": 1, "right": "a"}}))


def test_states_of_patterns() -> None:
    """Repetitions multiply what they repeat; what is no repetition is a text."""
    assert states("abc") == 3
    assert states("a{10}") == 10
    assert states("(ab){10}") == 10 * (2 + 2)
    assert states("((a{10}){10}){10}") > 1_000
    assert states("a{,5}") < 10
    assert states(r"\{5}") < 10
    assert states("[^a]{100}") > 1_000
    assert states("((((((((a{999}){999}){999}){999}){999}){999}){999}){999}") == 10**9
    assert states(")(][{\\") < 100


async def test_schema_is_parsed_once() -> None:
    """The turns that follow take it as it is."""
    schemas = OutputSchemas()
    first = await schemas.read(json.dumps(SCHEMAS["flat"]))
    second = await schemas.read(json.dumps(SCHEMAS["flat"]))

    assert first.schema is second.schema
    assert (await asyncio.gather(schemas.read(""), schemas.stored("")))[1] is None


def test_text_is_the_same_for_the_same_content() -> None:
    """White space makes no other definition; numbers stay as they are written."""
    schema = OutputSchema.parse('{ "maximum" : 1.50 ,\n "type": "number" }')

    assert schema.text == '{"maximum":1.50,"type":"number"}'
    assert exact_json.dumps(exact_json.loads(schema.text)) == schema.text
