"""Runs the benches and writes docs/benchmarks: `python -m bench [--only PARTS]`, which `make bench` calls.

Parts: peers, startup, metrics, tools; only when they are named: profile, which writes, too, and those that only print:
write_ahead, long_session, usage, flood, cancel, client, hostile (ten minutes).
"""

import argparse
import subprocess
import sys

USUAL = ("peers", "startup", "metrics", "tools")
WRITING = (*USUAL, "profile")
PRINTING = ("write_ahead", "long_session", "usage", "flood", "cancel", "client", "hostile")


def main() -> int:
    """Run the parts one after the other, each in a process of its own; exit status 1: one of them failed or missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(USUAL), help="parts, by commas")
    failed = []
    for part in parser.parse_args().only.split(","):
        if part not in (*WRITING, *PRINTING):
            parser.error(f"no part {part!r}; there are {', '.join((*WRITING, *PRINTING))}")
        command = [sys.executable, "-m", f"bench.{part}", *(["--write"] if part in WRITING else [])]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - this package's own modules
            failed.append(part)
    if failed:
        print(f"failed, or missed a promise: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
