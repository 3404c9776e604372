"""What ipyparallel has in `controller.dependency`."""

from ..client.views.dependency import Dependency
from ..errors import UnmetDependency
from ..on_engine.functional_dependency import depend, dependent, require

__all__ = ["Dependency", "UnmetDependency", "depend", "dependent", "require"]
