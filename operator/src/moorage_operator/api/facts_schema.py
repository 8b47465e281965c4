"""The schema of what a status says of a model's files, its memory and its starts. Pure."""

from typing import Any

from moorage_common.shape import MAX_TEXT

Schema = dict[str, Any]


def _count(description: str) -> Schema:
    return {"type": "integer", "description": description, "format": "int64"}


def _text(description: str, length: int) -> Schema:
    return {"type": "string", "description": description, "maxLength": length}


def _object(description: str, properties: Schema) -> Schema:
    return {"type": "object", "description": description, "properties": properties}


def shape_schema() -> Schema:
    """What the header of the model's files says; moorage_common.shape.Shape but for the bytes by type."""
    return _object(
        "What the model's files say of its size; known once a pod has read them, and kept while none runs.",
        {
            "source": _text("The address of the files that this is about, and which of them.", 1100),
            "architecture": _text("The family of models, such as llama.", MAX_TEXT),
            "storedBytes": _count("Bytes of all tensors as the files hold them."),
            "quantization": _text("The precision that the files hold.", MAX_TEXT),
            "parameters": _count("Numbers in all tensors."),
            "linearParameters": _count("Those that an engine may quantize while it loads."),
            "repackedBytes": _count("Bytes of tensors that llama.cpp keeps twice when it runs on the CPU."),
            "contextLength": _count("Tokens that the model was trained with."),
            "layers": _count("Layers."),
            "embedding": _count("Width between layers."),
            "feedForward": _count("Width inside a layer."),
            "heads": _count("Heads of attention."),
            "kvHeads": _count("Heads that keys and values have."),
            "headSize": _count("Numbers of one head's key."),
            "vocabulary": _count("Words that it knows."),
            "kvNumbers": _count("Numbers that a token leaves in the KV cache of layers that see the whole context."),
            "window": _count("Tokens that the other layers see."),
            "windowKvNumbers": _count("Numbers that a token leaves in the KV cache of those."),
        },
    )


def estimate_schema() -> Schema:
    """The terms of the memory that a replica needs, and what was measured."""
    return _object(
        "Memory that one replica needs, by what its files say; of its GPUs together, or of its engine on the CPU.",
        {
            "weightsBytes": _count("Bytes of the weights."),
            "kvCacheBytes": _count("Bytes of the KV cache when all requests are at their full context."),
            "overheadBytes": _count(
                "Bytes of everything else: buffers to compute in, and what the engine itself takes."
            ),
            "totalBytes": _count("The sum."),
            "contextLength": _count("Tokens of one request that this is for."),
            "requests": _count("Requests at a time that this is for."),
            "measuredBytes": _count("What the engine held when it had loaded and answered once."),
            "error": {
                "type": "number",
                "description": "By what fraction of what was measured the total is more, or less if negative.",
            },
        },
    )


def startup_schema() -> Schema:
    """How long the last start took."""
    return _object(
        "How long the last start of a pod took, in whole seconds.",
        {
            "pod": _text("The pod.", 253),
            "startedAt": {"type": "string", "description": "When its container started.", "format": "date-time"},
            "queuedSeconds": _count("Until it had a node."),
            "imageSeconds": _count("Pulling images and mounting."),
            "downloadSeconds": _count("Fetching the model; absent where nothing is fetched."),
            "loadSeconds": _count("From the start of the container until it was ready."),
            "totalSeconds": _count("All of it."),
        },
    )
