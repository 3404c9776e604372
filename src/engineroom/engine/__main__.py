"""`python -m engineroom.engine` is `ipengine`, with the import path of the process that started it."""

import gc
import sys

gc.disable()  # see `controller/__main__.py`
from ..cli.ipengine import main  # noqa: E402
from ..import_path import extend_import_path  # noqa: E402

gc.enable()
extend_import_path()
sys.exit(main())
