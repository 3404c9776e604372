"""Messages to and from bytes, objects to and from pickles, and the session over them. No sockets, no threads."""
