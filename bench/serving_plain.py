"""A peer of bench/serving.py: the server that a tutorial has, FastAPI around torch.

python bench/serving_plain.py --run RUN --port PORT
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from PIL import Image

from lucidate.core.records import RunCard
from lucidate.core.run import RunDir
from lucidate.data.preprocess import Preprocess
from lucidate.models.checkpoint import load_model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--run", type=Path, required=True)
parser.add_argument("--port", type=int, required=True)
arguments = parser.parse_args()

run = RunDir.open(arguments.run)
card = RunCard.load(run.card)
preprocess, model = Preprocess.from_dict(card.preprocess), load_model(run)
app = FastAPI()


@app.get("/health")
async def health() -> dict[str, bool]:
    return {"live": True}


@app.post("/predict")
async def predict(request: Request) -> dict[str, object]:
    image = Image.open(io.BytesIO(await request.body())).convert("RGB").resize((preprocess.size, preprocess.size))
    with torch.inference_mode():
        pixels = torch.from_numpy(np.array(image))[None]
        probabilities = model(preprocess.normalize(pixels)).softmax(1)[0].tolist()
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    return {"class": card.classes[best], "probabilities": probabilities}


uvicorn.run(app, host="127.0.0.1", port=arguments.port, loop="uvloop", http="httptools", log_level="warning")
