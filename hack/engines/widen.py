"""Writes a model in 32 bits: `widen.py SOURCE FOLDER`, in the environment of transformers."""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def widen(source: Path, target: Path) -> None:
    """Write the model, twice as long, with its tokenizer."""
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)


if __name__ == "__main__":
    widen(Path(sys.argv[1]), Path(sys.argv[2]))
