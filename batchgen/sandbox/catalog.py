"""What the sandbox offers and what it costs: data only, in the shape of the API's list of models."""

from __future__ import annotations

from typing import Any


def _model(
    name: str, price: float, description: str, kind: str = "Image", context: int | None = None
) -> dict[str, Any]:
    return {
        "model_name": name,
        "model_alias": name.rpartition("/")[2],
        "model_type": kind,
        "context_length": context,
        "max_completion_tokens": context,
        "description": description,
        "price": price,
        "huggingface_url": f"https://huggingface.co/{name}" if "/" in name else None,
    }


MODELS: dict[str, dict[str, Any]] = {
    model["model_name"]: model
    for model in (
        _model("stabilityai/stable-diffusion-xl-base-1.0", 0.009, "Text to image, 1024 x 1024."),
        _model("black-forest-labs/FLUX.1-schnell", 0.003, "Text to image in few steps."),
        _model("black-forest-labs/FLUX.1-Fill-dev", 0.04, "Repaints the white part of a mask."),
        _model("Bytedance-Seedream-3.0", 0.03, "Text to image."),
        _model("meta-llama/Llama-3.3-70B-Instruct", 0.0000002, "Text; makes no pictures.", "Text", 131_072),
        _model("BAAI/bge-large-en-v1.5", 0.00000001, "Embeddings; makes no pictures.", "Embedding", 512),
    )
}
IMAGE_PRICES_USD: dict[str, float] = {
    name: model["price"] for name, model in MODELS.items() if model["model_type"] == "Image"
}
