"""What trains several runs: levels, ensembles, distillation."""
