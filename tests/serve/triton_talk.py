"""What the stock tritonclient is used for, against a server: `python triton_talk.py HOST:PORT MODEL sync|aio`.

In a process of its own: the client brings gevent. Ends with a traceback where anything is not as the client expects.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
from PIL import Image

SIZE, CLASSES = 32, 10


def photos(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def given(module: Any, images: np.ndarray, datatype: str, *, binary: bool = True) -> Any:
    tensor = module.InferInput("images", list(images.shape), datatype)
    tensor.set_data_from_numpy(images, binary_data=binary)
    return tensor


def wanted(module: Any, **options: Any) -> list[Any]:
    return [module.InferRequestedOutput("probabilities", **options)]


async def talk(client: Any, module: Any, model: str, call: Any) -> None:
    """call: awaits a result where there is something to await."""
    assert await call(client.is_server_live()) is True
    assert await call(client.is_server_ready()) is True
    assert await call(client.is_model_ready(model)) is True
    assert await call(client.is_model_ready(model, "1")) is True
    assert await call(client.is_model_ready("nothing")) is False
    about = await call(client.get_server_metadata())
    assert about["name"] == "lucidate"
    assert "classification" in about["extensions"]
    for version in ("", "1"):
        metadata = await call(client.get_model_metadata(model, version))
        assert metadata["versions"] == ["1"]
        assert metadata["inputs"][0]["shape"] == [-1, SIZE, SIZE, 3]
        config = await call(client.get_model_config(model, version))
        assert config["output"][0]["dims"] == [CLASSES]
        stats = await call(client.get_inference_statistics(model, version))
        assert stats["model_stats"][0]["version"] == "1"
    as_image_client(metadata, config)
    assert [entry["name"] for entry in await call(client.get_model_repository_index())] == [model]

    images = photos(3)
    answer = await call(client.infer(model, [given(module, images, "UINT8")], request_id="one"))
    first = answer.as_numpy("probabilities")
    assert first.shape == (3, CLASSES)
    assert first.dtype == np.float32
    np.testing.assert_allclose(first.sum(1), 1, atol=1e-6)
    assert answer.get_response()["id"] == "one"
    for datatype, dtype in (("UINT8", np.uint8), ("FP32", np.float32)):
        for binary_in in (True, False):
            for binary_out in (True, False):
                for packed in (None, "gzip", "deflate"):
                    tensor = given(module, images.astype(dtype), datatype, binary=binary_in)
                    answer = await call(
                        client.infer(
                            model,
                            [tensor],
                            model_version="1",
                            outputs=wanted(module, binary_data=binary_out),
                            request_compression_algorithm=packed,
                            response_compression_algorithm=packed,
                            timeout=5_000_000,
                        )
                    )
                    np.testing.assert_allclose(answer.as_numpy("probabilities"), first, rtol=0, atol=1e-6)
    many = np.repeat(images, 30, 0)  # an answer that is worth compressing
    for packed in ("gzip", "deflate"):
        for binary_out in (True, False):
            outputs = wanted(module, binary_data=binary_out)
            asked = client.infer(
                model, [given(module, many, "UINT8")], outputs=outputs, response_compression_algorithm=packed
            )
            np.testing.assert_allclose(
                (await call(asked)).as_numpy("probabilities"), np.repeat(first, 30, 0), rtol=0, atol=1e-6
            )
    for binary_out in (True, False):
        outputs = wanted(module, binary_data=binary_out, class_count=2)
        words = (await call(client.infer(model, [given(module, images, "UINT8")], outputs=outputs))).as_numpy(
            "probabilities"
        )
        assert words.shape == (3, 2)
        for row, best in zip(first, words, strict=True):
            value, index, name = as_text(best[0]).split(":")
            assert int(index) == int(row.argmax())
            assert abs(float(value) - row.max()) < 1e-6
            assert name
    encoded = np.array([as_png(image) for image in images], dtype=np.object_)
    answer = await call(client.infer(model, [given(module, encoded, "BYTES")]))
    np.testing.assert_allclose(answer.as_numpy("probabilities"), first, rtol=0, atol=1e-6)

    await refused(call, lambda: client.infer("nothing", [given(module, images, "UINT8")]), "model: expected one of")
    await refused(call, lambda: client.infer(model, [given(module, images, "UINT8")], model_version="7"), "version")
    await refused(call, lambda: client.infer(model, [given(module, images[:, 1:], "UINT8")]), "expected shape")
    await refused(call, lambda: client.infer(model, [given(module, images.astype("i4"), "INT32")]), "UINT8, FP32")
    await refused(call, lambda: client.get_model_metadata("nothing"), "model: expected one of")

    await call(client.load_model(model))
    assert await call(client.is_model_ready(model, "1")) is True  # nothing has changed: the same version


def as_image_client(metadata: dict[str, Any], config: dict[str, Any]) -> None:
    """What Triton's image_client.py demands of a model before it sends an image."""
    assert len(metadata["inputs"]) == len(metadata["outputs"]) == 1
    assert len(config["input"]) == 1
    assert metadata["outputs"][0]["datatype"] == "FP32"
    assert config["max_batch_size"] > 0
    assert len(metadata["inputs"][0]["shape"]) == 4
    assert config["input"][0]["format"] in ("FORMAT_NCHW", "FORMAT_NHWC")
    assert sum(side > 1 for side in metadata["outputs"][0]["shape"][1:]) == 1


async def refused(call: Any, attempt: Any, text: str) -> None:
    from tritonclient.utils import InferenceServerException

    message = ""
    try:
        await call(attempt())
    except InferenceServerException as error:
        message = error.message()
    assert text in message, message or f"expected an error about {text!r}"


def as_text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def as_png(image: np.ndarray) -> bytes:
    from io import BytesIO

    file = BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


async def main(address: str, model: str, kind: str) -> None:
    if kind == "sync":
        import tritonclient.http as module

        async def at_once(result: Any) -> Any:
            return result

        client = module.InferenceServerClient(address)
        await talk(client, module, model, at_once)
        client.close()
        return
    import tritonclient.http.aio as module

    async def awaited(result: Any) -> Any:
        return await result

    async with module.InferenceServerClient(address) as client:
        await talk(client, module, model, awaited)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
