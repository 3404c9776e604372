"""`python -m engineroom.engine` is `ipengine`."""

import sys

from ..cli.ipengine import main

sys.exit(main())
