"""A trained model in the forms that its users need, each proven to be the same model."""
