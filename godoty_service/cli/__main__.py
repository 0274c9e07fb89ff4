"""Runs the command line as `python -m godoty_service.cli`."""

from godoty_service.cli import main

main()
