"""The folders in which engines look for modules after all others: those of the process that started them."""

from __future__ import annotations

import os
import sys

#: The environment variable that holds these folders.
IMPORT_PATH = "ENGINEROOM_IMPORT_PATH"


def extend_import_path() -> None:
    """Append the folders to `sys.path`. The variable is removed: processes that tasks start are not engines."""
    given = os.environ.pop(IMPORT_PATH, "")
    sys.path.extend(folder for folder in given.split(os.pathsep) if folder and folder not in sys.path)
