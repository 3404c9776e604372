"""What the tools (commands, dashboard) share to read task records: where they are, and queries as text."""
