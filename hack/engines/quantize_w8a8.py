"""Quantizes a model to 8-bit integers, weights and activations: `quantize_w8a8.py SOURCE FOLDER`.

It runs in the environment of llmcompressor and writes the form of compressed-tensors. No data is needed to calibrate:
the scales of weights come from the weights, those of activations are computed as the model runs.
"""

import sys
from pathlib import Path

import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from transformers import AutoModelForCausalLM, AutoTokenizer


def quantize(source: Path, target: Path) -> None:
    """Write the quantized model with its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    oneshot(model=model, recipe=QuantizationModifier(targets="Linear", scheme="INT8", ignore=["lm_head"]))
    model.save_pretrained(target, save_compressed=True)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)


if __name__ == "__main__":
    torch.set_num_threads(1)
    quantize(Path(sys.argv[1]), Path(sys.argv[2]))
