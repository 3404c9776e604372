"""Growing and shrinking a cluster: `plan` decides, `driver` looks and does."""
