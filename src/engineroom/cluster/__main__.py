"""`python -m engineroom.cluster` is `ipcluster`."""

import sys

from ..cli.ipcluster import main

sys.exit(main())
