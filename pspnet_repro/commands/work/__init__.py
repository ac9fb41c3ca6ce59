"""What the commands do, apart from their options: one module a command."""
