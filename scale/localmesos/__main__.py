"""Entry of `python -m scale.localmesos`."""

import sys

from scale.localmesos.server import main

sys.exit(main())
