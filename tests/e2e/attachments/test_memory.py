"""A conversation with large images: the server's memory returns."""

from collections.abc import Callable
from pathlib import Path

from tests.conftest import StartProcess
from tests.e2e.attachments.conftest import Attacher, digest
from tests.support.media import png
from tests.support.service import Service, soon

Attach = Callable[[Service], Attacher]
MIB = 1024 * 1024
ALLOWED = 30 * MIB  # less than the images, and than one of the last requests


def resident(process: int) -> int:
    """Return the resident bytes of a process."""
    lines = (line.split(":") for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(dict(lines)["VmRSS"].split()[0]) * 1024


async def test_memory_returns_after_ten_images_over_twenty_turns(serve_process: StartProcess, attach: Attach) -> None:
    """Ten images of 5 MB, all of which each later request carries: 50 MB of bytes a turn, of which none is kept."""
    process, service = await serve_process()
    attacher = attach(service)
    await attacher.converse("warm", png(size=1_000_000), session_id="warm")
    assert process.process is not None
    pid = process.process.pid
    before, files = resident(pid), []
    for number in range(20):
        attachments = []
        if number < 10:
            files.append(png(size=5_000_000))
            attachments = [(await attacher.upload(files[-1])).attachment_id]
        turn = await attacher.converse(f"turn {number}", *attachments)
        assert turn.finished, turn.failure
    assert attacher.seen()[-1] == [digest(each) for each in files]
    await soon(lambda: resident(pid) - before < ALLOWED, within=30.0)
