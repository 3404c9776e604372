"""The processes of a cluster: its controller, its engines, its dashboard. Each is started, watched and stopped here."""
