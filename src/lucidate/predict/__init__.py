"""Models and batches → predictions."""
