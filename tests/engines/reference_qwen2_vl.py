"""Embeds by transformers' own processor and chat text, one input at a time: `reference_qwen2_vl.py FOLDER < JSON`.

It shares no code with ours: what it prints is what ours has to compute.
"""

import base64
import io
import json
import sys
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

SYSTEM = "You are a helpful assistant."


def vector(model: Any, tokenizer: Any, images: Any, one: dict[str, Any]) -> list[float]:
    """Embed one input as GME's authors do: a chat of one turn that ends with <|endoftext|>."""
    seen, fields = "", {}
    if one.get("image"):
        content = base64.b64decode(one["image"].partition(",")[2])
        side = 28 * 28
        size = {"shortest_edge": 4 * side, "longest_edge": 64 * side}
        patches = images(images=[Image.open(io.BytesIO(content)).convert("RGB")], size=size, return_tensors="pt")
        fields = {"pixel_values": patches["pixel_values"], "image_grid_thw": patches["image_grid_thw"]}
        seen = "<|vision_start|>" + "<|image_pad|>" * (int(patches["image_grid_thw"].prod()) // 4) + "<|vision_end|>"
    chat = (
        f"<|im_start|>system\n{one.get('instruction') or SYSTEM}<|im_end|>\n"
        f"<|im_start|>user\n{seen}{one.get('text') or ''}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
    )
    tokens = tokenizer(chat, return_tensors="pt")["input_ids"]
    if fields:
        fields["mm_token_type_ids"] = (tokens == model.config.image_token_id).int()
    model.model.rope_deltas = None
    with torch.inference_mode():
        state = model.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **fields).last_hidden_state[0, -1]
    found: list[float] = torch.nn.functional.normalize(state, dim=0).tolist()
    return found


def main(folder: str) -> None:
    """Embed all inputs that come in."""
    torch.set_num_threads(1)
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, images = AutoTokenizer.from_pretrained(folder), Qwen2VLImageProcessorPil.from_pretrained(folder)
    json.dump([vector(model, tokenizer, images, one) for one in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
