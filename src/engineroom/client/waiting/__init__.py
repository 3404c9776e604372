"""How the threads of a client wait for tasks, and in which thread done-callbacks run."""
