"""Where a model looks, and whether its heatmaps deserve trust."""
