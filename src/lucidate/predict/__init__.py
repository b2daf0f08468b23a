"""Models and batches → predictions."""

from lucidate.predict.infer import predict_logits, predict_run

__all__ = ["predict_logits", "predict_run"]
