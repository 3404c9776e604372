"""TCP across hosts, encrypted: the link, the listener, the connection, and the certificates of both ends."""
