"""What to write instead of a method that other libraries have: said by the AttributeError for its name."""

from __future__ import annotations

_OF_VIEWS = ("apply", "apply_async", "apply_sync", "map", "map_async", "map_sync", "imap")
_OF_DIRECT_VIEWS = ("push", "pull", "execute", "scatter", "gather", "run")

#: name → what a user of a client writes
OF_CLIENT = {
    **{
        name: f"a view has it: rc.load_balanced_view().{name}(…), or rc[:].{name}(…) for all engines"
        for name in _OF_VIEWS
    },
    **{name: f"a direct view has it: rc[:].{name}(…)" for name in _OF_DIRECT_VIEWS},
    "submit": "an executor has it: rc.executor().submit(…)",
    "scale": "a cluster has it: rc.cluster.scale_sync(n)",
    "engines": "rc.ids has the numbers of the engines, rc.queue_status() what they do",
    "stop": "rc.shutdown(hub=True) stops the cluster; so does rc.cluster.stop_cluster_sync(), where it was started",
    "terminate": "rc.cancel() ends all tasks; rc.shutdown(hub=True) stops the cluster",
    "join": "rc.wait() waits for all tasks of this client",
    "gather_results": "ar.get() gives the values; er.AsyncResult.join(…) makes one result of several",
}
#: name → what a user of any view writes
OF_VIEW = {
    **{name: f"a direct view has it: rc[:].{name}(…)" for name in _OF_DIRECT_VIEWS},
    "submit": "view.executor.submit(…) gives a Future, view.apply_async(…) an AsyncResult",
    "starmap": "write map(f, *zip(*arguments))",
    "starmap_async": "write map_async(f, *zip(*arguments))",
    "imap_unordered": "a load-balanced view gives values as they come: imap(f, items, ordered=False)",
    "eval": "write pull('a + 1'), which takes any expression, or apply(f, er.Reference('a + 1'))",
    "compute": "write apply_async(f, …)",
    "close": "a view needs no closing; rc.close() closes its client",
    "terminate": "rc.cancel() ends tasks; the engines stay",
    "join": "view.wait() waits for the tasks of the view",
    "ids": "the engines of a view are its targets; all: rc.ids",
}


def no_attribute(owner: object, name: str, hints: dict[str, str]) -> AttributeError:
    """The error for an attribute that is not there."""
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    return AttributeError(f"{text}: {hints[name]}" if name in hints else text, name=name, obj=owner)
