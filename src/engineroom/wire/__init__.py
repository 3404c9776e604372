"""Messages ⇄ frames, objects ⇄ buffers. Pure: no sockets, files or threads."""
