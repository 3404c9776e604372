"""The dashboard: a web page that shows a cluster, running or ended, and acts on its tasks.

It is a client like any other: it asks the controller, or reads the database of a cluster that has ended. It never
reaches into the controller. Its parts: `security.py` (who may ask), `server.py` (the process), `source.py` (where the
records come from), `routes.py` (paths), and one module for each page. `static/` is what the browser loads; it asks no
other address.

Nothing here is imported by `import engineroom`. The extra `engineroom[dashboard]` installs what it needs.
"""
