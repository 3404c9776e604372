"""Running one task: namespace, output, cells, interrupts. Nothing here knows the controller."""
