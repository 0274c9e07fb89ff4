"""What the model sees of a result."""

from mcp_types import CallToolResult, EmbeddedResource, ImageContent, ResourceLink, TextContent, TextResourceContents

from godoty_service.agents.mcp.results import error_result, tool_result


def texts(result: CallToolResult, max_bytes: int | None = None) -> list[str]:
    """Return the texts that the model sees."""
    return [each["text"] for each in tool_result("t1", result, max_bytes=max_bytes)["content"]]


def text(value: str) -> TextContent:
    """Return a text of a result."""
    return TextContent(type="text", text=value)


def test_texts_are_kept_and_the_status_follows() -> None:
    """An error of the tool is one."""
    failed = tool_result("t1", CallToolResult(content=[text("a"), text("b")], is_error=True))

    assert failed == {"toolUseId": "t1", "status": "error", "content": [{"text": "a"}, {"text": "b"}]}


def test_structured_content_is_added_unless_a_text_has_it() -> None:
    """The protocol recommends that servers send it as text as well."""
    value = {"sum": 5, "parts": [2, 3]}

    assert texts(CallToolResult(content=[], structured_content=value)) == ['{"sum": 5, "parts": [2, 3]}']
    assert texts(CallToolResult(content=[text('{"parts":[2,3],"sum":5}')], structured_content=value)) == [
        '{"parts":[2,3],"sum":5}'
    ]


def test_what_is_no_text_is_named() -> None:
    """The model knows that there was something."""
    resource = TextResourceContents(uri="file:///a", text="inside")
    blocks = [
        ImageContent(type="image", data="AAAA", mime_type="image/png"),
        ResourceLink(type="resource_link", name="log", uri="file:///log"),
        EmbeddedResource(type="resource", resource=resource),
    ]

    assert texts(CallToolResult(content=blocks)) == [
        "[image/png, 3 bytes: left out]",
        "[Resource log: file:///log]",
        "inside",
    ]


def test_empty_result_is_a_result() -> None:
    """Providers refuse one without content."""
    assert texts(CallToolResult(content=[])) == ["(no output)"]


def test_result_is_cut_to_the_bytes_of_its_server() -> None:
    """With a note of what is missing; characters stay whole."""
    shown = texts(CallToolResult(content=[text("aä" * 100), text("b" * 50)]), 256)

    assert shown == [f"{'aä' * 85}a\n[The result is cut: 79 more characters are left out.]"]


def test_text_that_utf_8_cannot_encode_is_replaced() -> None:
    """It would fail when it is stored."""
    assert error_result("t1", "a\ud800b")["content"] == [{"text": "a?b"}]
