"""The command-line tools, under the paths that ipyparallel 6 had: `apps.ipclusterapp`, `apps.ipengineapp` …"""
