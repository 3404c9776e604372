"""What the kernel says of this host."""
