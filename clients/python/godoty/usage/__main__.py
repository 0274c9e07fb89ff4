"""Run the command: `python -m godoty.usage`."""

import sys

from godoty.usage.app import main

sys.exit(main())
