"""What users' code meets on an engine. Its functions and classes travel by name, so both ends import this package."""
