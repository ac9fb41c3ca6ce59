"""The layers that a network can be made of, one module a family."""
