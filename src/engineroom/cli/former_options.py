"""Options of ipyparallel's tools that have no effect here. They are accepted, and the log says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..messages import signal_number


class Former(NamedTuple):
    """An option without effect."""

    why: str
    takes_value: bool = True
    #: raises ValueError for a value that makes no sense
    check: Callable[[str], object] | None = None


def _check_signal(value: str) -> None:
    signal_number(int(value) if value.isdecimal() else value)


_TUNNEL = "tunnels are opened by those that connect: Client(sshserver=…), `ipengine --ssh=…`"
_LOG = "the log goes to stderr; `ipcluster start` keeps those of its processes in the profile's log folder"
_CURVE = "TCP is always encrypted, with keys that are made for each controller"

#: of every tool
EVERYWHERE = {
    "log-to-file": Former(_LOG, takes_value=False),
    "clean-logs": Former(_LOG, takes_value=False),
    "log-url": Former(_LOG),
    "init": Former("a profile needs no initialization", takes_value=False),
}
CONTROLLER = {
    **EVERYWHERE,
    "ports": Former("there is one socket: --port= names its port"),
    "transport": Former("processes of this host use Unix sockets, others TCP: --ip="),
    "ssh": Former(_TUNNEL),
    "enginessh": Former(_TUNNEL),
    "ident": Former("records name the session that submitted a task"),
    "user": Former("records name the session that submitted a task"),
    "keyfile": Former("the key is in the connection file"),
    "restore": Former("engines of a controller that was killed come back by themselves", takes_value=False),
    "usethreads": Former("the scheduler runs in the controller's main thread", takes_value=False),
    "secure": Former("nothing is open without the key", takes_value=False),
    "no-secure": Former("nothing is open without the key", takes_value=False),
    "IPController.client_ip": Former("there is one socket: --ip="),
    "IPController.engine_ip": Former("there is one socket: --ip="),
    "IPController.client_ports": Former("there is one socket: --port= names its port"),
    "IPController.engine_ports": Former("there is one socket: --port= names its port"),
    "IPController.ports": Former("there is one socket: --port= names its port"),
    "IPController.ssh_server": Former(_TUNNEL),
    "IPController.engine_ssh_server": Former(_TUNNEL),
    "IPController.restore_engines": Former("engines of a controller that was killed come back by themselves"),
    "IPController.registration_timeout": Former("engines may come at any time"),
    "IPController.enable_curve": Former(_CURVE),
    "IPController.curve_publickey": Former(_CURVE),
    "IPController.curve_secretkey": Former(_CURVE),
    "IPController.broadcast_scheduler_depth": Former("there is one scheduler"),
    "IPController.use_threads": Former("the scheduler runs in the controller's main thread"),
}
ENGINE = {
    **EVERYWHERE,
    "url": Former("the connection file says where the controller is: --file="),
    "location": Former("the connection file says where the controller is: --file="),
    "IPEngine.enable_nanny": Former("every engine has a nanny"),
    "IPEngine.max_heartbeat_misses": Former("the nanny tells at once when an engine dies"),
    "IPEngine.use_mpi": Former("`ipengine --mpi` says it"),
    "IPEngine.init_mpi": Former("mpi4py is imported by `ipengine --mpi`"),
    "IPEngine.mpi_registration_delay": Former("ranks ask for their rank as their number"),
}
CLUSTER = {
    **EVERYWHERE,
    "delay": Former("engines start within a fraction of a second"),
    "signal": Former(
        "`ipcluster stop` ends processes by SIGTERM, and by SIGKILL if that does not help", check=_check_signal
    ),
    "Cluster.delay": Former("engines start within a fraction of a second"),
    "Cluster.send_engines_connection_env": Former("engines are given their connection file"),
}
#: of `ipcluster engines`
CLUSTER_ENGINES = {
    **CLUSTER,
    "daemonize": Former("the command returns when the engines are ready, and they run on", takes_value=False),
}
