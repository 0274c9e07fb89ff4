"""`python -m godoty_service.cli`."""

from godoty_service.cli.main import main

main()
