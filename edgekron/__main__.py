"""``python -m edgekron``: the command line."""

import sys

from edgekron.cli.main import main

sys.exit(main())
