"""One file a figure: thin drawings of computed findings."""
