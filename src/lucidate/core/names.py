"""Names of models that stand in no registry."""

ENSEMBLE = "ensemble"  # a model whose options are other models; `lucidate ensemble` makes it
ONNX = "onnx"  # a graph in a file that somebody made
KERAS = "keras"  # a .keras file, likewise
EXTERNAL = (ONNX, KERAS)
MODEL_FILES = (".onnx", ".keras", ".toml")  # what may stand where a run is asked for
TIMM = "timm:"  # before the names of timm's models
