"""A production server for trained models."""
