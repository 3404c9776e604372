"""Module paths of ipyparallel, and the modules here that they stand for. `import` finds them through `former_names`."""

from __future__ import annotations

#: old path → module, both without "engineroom."
PATHS = {
    f"engineroom.{old}": f"engineroom.{now}"
    for old, now in {
        "apps": "compat.apps",
        "apps.ipclusterapp": "cli.ipcluster",
        "apps.ipcontrollerapp": "cli.ipcontroller",
        "apps.ipengineapp": "cli.ipengine",
        "apps.launcher": "compat.launcher",
        "client.asyncresult": "compat.asyncresult",
        "client.map": "client.results.partition",
        "client.remotefunction": "client.views.remote",
        "client.view": "compat.view",
        "cluster.app": "cli.ipcluster",
        "cluster.launcher": "compat.launcher",
        "controller.app": "cli.ipcontroller",
        "controller.dependency": "compat.dependency",
        "controller.dictdb": "compat.databases",
        "controller.mongodb": "compat.databases",
        "controller.sqlitedb": "compat.databases",
        "engine.app": "cli.ipengine",
        "engine.datapub": "on_engine.datapub",
        "error": "compat.error",
        "joblib": "compat.joblib",
        "serialize": "compat.serialize",
        "serialize.canning": "compat.serialize.canning",
        "serialize.codeutil": "compat.serialize.codeutil",
        "serialize.serialize": "compat.serialize",
    }.items()
}
