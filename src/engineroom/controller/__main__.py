"""`python -m engineroom.controller` is `ipcontroller`."""

import sys

from ..cli.ipcontroller import main

sys.exit(main())
