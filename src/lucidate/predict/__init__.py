"""Models and batches → predictions."""

from lucidate.predict.elsewhere import Answer, predict_files, predict_source
from lucidate.predict.infer import predict_logits, predict_run

__all__ = ["Answer", "predict_files", "predict_logits", "predict_run", "predict_source"]
