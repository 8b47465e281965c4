"""generate() of transformers, one by one and in static left-padded batches; runs in the environment of the engine.

Each line of standard input is a task, `{"way", "dtype", "prompts", "limits"}` with prompts as token numbers; each is
answered by a line with the seconds that it took. The model is loaded once for each dtype, which is not counted.
"""

import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM


def one_by_one(model: Any, prompts: list[list[int]], limits: list[int]) -> None:
    """Answer each prompt by itself."""
    for prompt, limit in zip(prompts, limits, strict=True):
        ids = torch.tensor([prompt])
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, min_new_tokens=limit, do_sample=False
        )


def static(model: Any, prompts: list[list[int]], limits: list[int]) -> None:
    """Answer all prompts in one batch, padded on the left, until the longest answer is there."""
    longest, limit = max(map(len, prompts)), max(limits)
    ids = torch.tensor([[2] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model.generate(ids, attention_mask=mask, max_new_tokens=limit, min_new_tokens=limit, do_sample=False)


def main() -> None:
    """Answer tasks until the input ends."""
    torch.set_num_threads(int(sys.argv[2]))
    models: dict[str, Any] = {}
    for line in sys.stdin:
        task = json.loads(line)
        dtype = task["dtype"]
        if dtype not in models:
            loaded = AutoModelForCausalLM.from_pretrained(sys.argv[1], local_files_only=True, dtype=dtype)
            models[dtype] = loaded.eval()
        model = models[dtype]
        begun = time.monotonic()
        with torch.inference_mode():
            (static if task["way"] == "static" else one_by_one)(model, task["prompts"], task["limits"])
        print(time.monotonic() - begun, flush=True)


if __name__ == "__main__":
    main()
