"""`python -m engineroom.controller` is `ipcontroller`."""

import gc
import sys

gc.disable()  # imports leave little garbage: to look for it while they go on costs a tenth of their time
from ..cli.ipcontroller import main  # noqa: E402

gc.enable()
sys.exit(main())
