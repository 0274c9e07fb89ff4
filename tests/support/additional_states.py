"""A pytest plugin: adds states to the table of `ledger/states.py`, as an edit of that module alone would."""

import sys
from importlib.util import find_spec, module_from_spec
from pathlib import Path

import pytest

MODULE = "godoty_service.ledger.states"
# One of each kind: open, with a cost, with tokens alone, with a bound, and without any of them.
STATES = {
    "QUEUED": "Contribution(open=True)",
    "ESTIMATED": "Contribution(cost=True)",
    "WAIVED": "Contribution(usage=True)",
    "DISPUTED": "Contribution(unresolved=True)",
    "EXPIRED": "Contribution(call=False, turn=False)",
}
_LAST_MEMBER = '    VOID = "void"\n'
_LAST_ROW = "    CallState.VOID: Contribution(call=False, turn=False),\n"


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Load the module with the states before anything imports it."""
    assert MODULE not in sys.modules
    spec = find_spec(MODULE)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    members = "".join(f'    {name} = "{name.lower()}"\n' for name in STATES)
    rows = "".join(f"    CallState.{name}: {row},\n" for name, row in STATES.items())
    for last, added in ((_LAST_MEMBER, members), (_LAST_ROW, rows)):
        assert source.count(last) == 1
        source = source.replace(last, last + added)
    module = sys.modules[MODULE] = module_from_spec(spec)
    exec(compile(source, spec.origin, "exec"), module.__dict__)  # noqa: S102 - our own module
