"""What ipyparallel has in `client.asyncresult`."""

from ..client.results.map_result import AsyncMapResult
from ..client.results.result import AsyncHubResult, AsyncResult

__all__ = ["AsyncHubResult", "AsyncMapResult", "AsyncResult"]
