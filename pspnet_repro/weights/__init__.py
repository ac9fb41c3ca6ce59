"""Files of weights: whose they are, and what can be done with them."""
