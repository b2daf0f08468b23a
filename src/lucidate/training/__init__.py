"""Recipes and images → trained runs."""
