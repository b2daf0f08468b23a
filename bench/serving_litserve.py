"""A peer of bench/serving.py: LitServe around ONNX Runtime, with the graph that we serve.

    python bench/serving_litserve.py --graph FILE.onnx --port PORT [--threads 1] [--batch 16]

Needs litserve, onnxruntime, pillow and numpy, not lucidate. Images come in base64 in JSON, as its documentation has it.
--threads: of the session, which then does not spin, as ours does not; 0: ONNX Runtime's own defaults.
"""

from __future__ import annotations

import argparse
import base64
import io
from typing import Any

import litserve
import numpy as np
import onnxruntime
from PIL import Image


class Classifier(litserve.LitAPI):
    graph, threads = "", 1

    def setup(self, device: str) -> None:  # noqa: ARG002
        options = onnxruntime.SessionOptions()
        if self.threads:
            options.intra_op_num_threads = self.threads
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])
        self.size = self.session.get_inputs()[0].shape[1]

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        image = Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("RGB")
        return np.asarray(image.resize((self.size, self.size)))

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, images: np.ndarray) -> Any:
        return self.session.run(["probabilities"], {"images": images if images.ndim == 4 else images[None]})[0]

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        probabilities = np.ravel(output).tolist()
        return {"class": int(np.argmax(probabilities)), "probabilities": probabilities}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    api = Classifier(max_batch_size=arguments.batch, batch_timeout=0.0 if arguments.batch == 1 else 0.002)
    api.graph, api.threads = arguments.graph, arguments.threads  # on the object: its workers are other processes
    server = litserve.LitServer(api, accelerator="cpu", track_requests=False)
    server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, log_level="warning")
