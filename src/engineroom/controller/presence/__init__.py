"""Who is here: clients, engines and nannies come, are known by their connections, fall silent, and go."""
