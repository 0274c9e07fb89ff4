"""The provider's message in an error: found in every shape, with keys masked, and bounded."""

import time
from typing import Any

import httpx2 as httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.openrouter.decoding.text import MAX_MESSAGE_CHARACTERS, clean_message
from godoty_service.openrouter.errors import from_body, from_exception

KEY = "local-gateway-secret"
WORDS = "temperature must be below 2"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 400, "message": WORDS}},  # OpenAI, OpenRouter, llama.cpp
        {"error": {"code": 400, "metadata": {"raw": WORDS}}},
        {"error": {"code": 400, "metadata": {"raw": '{"error": {"message": "temperature must be below 2"}}'}}},
        {"error": WORDS},  # Ollama
        {"object": "error", "message": WORDS, "code": 400},  # vLLM
        {"detail": WORDS},  # FastAPI
        WORDS,
    ],
)
def test_message_is_found_in_each_shape_of_body(body: Any) -> None:
    """In OpenRouter's, in upstream providers' own inside it, and in those of other gateways."""
    assert from_body(400, body, {}).message == WORDS


def test_message_of_invalid_field_names_the_field() -> None:
    """FastAPI lists invalid fields, each with its location."""
    body = {"detail": [{"loc": ["body", "temperature"], "msg": "Input should be less than 2", "input": "hidden"}]}

    assert from_body(422, body, {}).message == "body.temperature Input should be less than 2"


def test_general_message_is_followed_by_upstream_message() -> None:
    """OpenRouter states the rejection, the upstream provider its reason; neither is repeated."""
    raw = '{"error": {"message": "temperature must be below 2", "type": "invalid_request_error"}}'
    body = {"error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": raw}}}

    assert from_body(400, body, {}).message == "Provider returned error: temperature must be below 2"


@pytest.mark.parametrize("body", [None, [], 7, {}, {"error": None}, {"error": {"message": 7}}, {"message": " "}])
def test_body_without_text_has_no_message(body: Any) -> None:
    """An unknown message is None, not an empty text."""
    assert from_body(500, body, {}).message is None


@pytest.mark.parametrize(
    ("content_type", "message"), [("text/plain; charset=utf-8", WORDS), ("text/html", None), ("application/json", None)]
)
def test_plain_text_body_is_message_and_page_is_not(content_type: str, message: str | None) -> None:
    """A proxy's error page has no message about the request."""
    request = httpx.Request("POST", "http://localhost/v1/chat/completions")
    response = httpx.Response(400, headers={"content-type": content_type}, content=WORDS.encode(), request=request)

    error = from_exception(openai.BadRequestError("no", response=response, body=None))

    assert error.message == message


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (KEY, "secret"),
        ("gdt_0123456789abcdef_S3cretS3cretS3cret", "S3cret"),
        ("sk-or-v1-0123456789abcdef0123456789abcdef", "abcdef"),
        ("sk-proj-****************abcd", "abcd"),
        ("Bearer abc.def-ghi", "def-ghi"),
        ("AKIAIOSFODNN7EXAMPLE", "FODNN7"),
        ("AIzaSyA-0123456789abcdefghijklmno", "abcdef"),
        ("hf_abcdefghijklmnop", "abcdef"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdef", "abcdef"),
        ("0123456789abcdef0123456789abcdef", "abcdef"),
        ("authorization: Basic dXNlcjpwYXNz", "dXNl"),
        ('api_key="my-own-secret"', "my-own"),
        ("https://user:hunter2@gateway/v1", "hunter2"),
        ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA", "iVBOR"),
    ],
)
def test_keys_are_masked_in_message(text: str, hidden: str) -> None:
    """The key of the request, ours, other vendors', and tokens of their shape; the words remain."""
    cleaned = clean_message(f"Refused ({text}): {WORDS}", secrets=[KEY])

    assert hidden not in cleaned
    assert "[key]" in cleaned
    assert cleaned.endswith(WORDS)


@pytest.mark.parametrize(
    "text",
    [
        "max_completion_tokens must be at most 128000",
        "anthropic/claude-haiku-4.5-20251001 is not a valid model",
        "Unsupported value: 'temperature' does not support 2.5 with this model.",
        "This endpoint's maximum context length is 200000 tokens, at /api/v1/chat/completions",
        "0af76519-16cd-43dd-8448-eb211c80319c",
    ],
)
def test_ordinary_words_remain_in_message(text: str) -> None:
    """Names of models, parameters and paths are not mistaken for keys."""
    assert clean_message(text, secrets=["EMPTY"]) == text


def test_message_is_one_line_without_control_characters() -> None:
    """A terminal, a log and a table can show it: no escapes, line breaks, or marks that change its direction."""
    cleaned = clean_message("a\x1b[31mred\r\nline\u2028two\u202e\u200b\x00 \ud800end")

    assert cleaned == "a [31mred line two \ufffdend"


def test_message_is_cut_to_500_characters_and_never_within_key() -> None:
    """A key at the cut is masked as a whole: the text is cut after it is cleaned."""
    text = "x " * 245 + KEY + " and so on" * 100

    cut = clean_message(text, secrets=[KEY])

    assert len(cut) == MAX_MESSAGE_CHARACTERS
    assert KEY[:4] not in cut
    assert len(from_body(400, {"error": {"message": "ü" * 10_000}}, {}).message or "") <= MAX_MESSAGE_CHARACTERS


@given(st.text(max_size=300))
def test_any_text_becomes_one_bounded_printable_line(text: str) -> None:
    """For any text of a gateway."""
    cleaned = clean_message(text * 3, secrets=[KEY])

    assert len(cleaned) <= MAX_MESSAGE_CHARACTERS
    assert "\n" not in cleaned
    assert all(each.isprintable() for each in cleaned)


@pytest.mark.parametrize("part", ["a", "sk-", "1a", "api_key", "data:", "://a:", "eyJ", "bearer ", "authorization"])
def test_long_message_is_cleaned_without_quadratic_work(part: str) -> None:
    """No input makes the patterns slow, which would block the event loop for seconds."""
    text = part * 10**5
    durations = []
    for _ in range(5):  # the fastest: another process may slow some of them down
        started = time.thread_time()
        from_body(400, {"error": {"message": text, "metadata": {"raw": text}}}, {})
        durations.append(time.thread_time() - started)

    assert min(durations) < 0.5
