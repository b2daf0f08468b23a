"""Networks by name, their weights, and how they are asked."""
