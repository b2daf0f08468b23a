"""Names of models that stand in no registry."""

ENSEMBLE = "ensemble"  # a model whose options are other models; `lucidate ensemble` makes it
TIMM = "timm:"  # before the names of timm's models
