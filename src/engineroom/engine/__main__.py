"""`python -m engineroom.engine` is `ipengine`, with the import path of the process that started it."""

import sys

from ..cli.ipengine import main
from ..import_path import extend_import_path

extend_import_path()
sys.exit(main())
