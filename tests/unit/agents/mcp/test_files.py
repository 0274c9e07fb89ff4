"""MCP servers in YAML files."""

from pathlib import Path

import pytest
from godoty.v1 import mcp_server_pb2 as pb

from godoty_service.cli.agents.mcp_files import read_servers, to_yaml

EXAMPLES = sorted((Path(__file__).parents[4] / "examples" / "mcp").glob("*.yaml"))
TEXT = """
name: crm
url: https://mcp.example/mcp
headers: {Authorization: "Bearer ${TOKEN}", X-Kept: }
oauth: {token_url: https://login.example/token, client_id: me, client_secret: "${SECRET}"}
deny: ["delete_*"]
timeout: 2.5s
"""


def written(path: Path, text: str) -> Path:
    """Write a file."""
    path.write_text(text)
    return path


def test_secrets_come_from_the_environment(tmp_path: Path) -> None:
    """Headers are a mapping; one without a value is the stored one."""
    (server,) = read_servers(written(tmp_path / "a.yaml", TEXT), {"TOKEN": "t1", "SECRET": "s1"})

    assert list(server.headers) == [pb.McpHeader(name="Authorization", secret="Bearer t1"), pb.McpHeader(name="X-Kept")]
    assert server.oauth.client_secret == "s1"
    assert server.timeout.ToMilliseconds() == 2500
    assert list(server.deny) == ["delete_*"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (TEXT, "TOKEN is not set"),
        ("name: a\nsecret: b", "secret"),
        ("- a", "mapping"),
        ("headers: [a]", "headers"),
        ("a: [", "YAML"),
    ],
)
def test_file_with_a_fault_is_named(tmp_path: Path, text: str, part: str) -> None:
    """With what is wrong."""
    path = written(tmp_path / "a.yaml", text)

    with pytest.raises(ValueError, match=part) as error:
        read_servers(path, {})
    assert str(path) in str(error.value)


def test_server_survives_its_yaml(tmp_path: Path) -> None:
    """Without its secrets, which are kept by the server."""
    (server,) = read_servers(written(tmp_path / "a.yaml", TEXT), {"TOKEN": "t1", "SECRET": "s1"})
    text = to_yaml(server)
    for header in server.headers:
        header.ClearField("secret")

    (again,) = read_servers(written(tmp_path / "b.yaml", text), {})
    again.oauth.client_secret = server.oauth.client_secret

    assert "t1" not in text
    assert again == server


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_read(path: Path) -> None:
    """Without any variable."""
    assert read_servers(path, {})
