"""Converts a GGUF file of a Llama model into a folder of the Hugging Face form: `convert_gguf.py FILE FOLDER`.

It runs in the environment of transformers, which reads the file's numbers and its tokenizer. The weights go into a
fresh model, because the loaded one still says that it was quantized.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM


def convert(source: Path, target: Path) -> None:
    """Write config, safetensors, tokenizer and chat template."""
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    if hasattr(loaded.config, "quantization_config"):
        del loaded.config.quantization_config
    with torch.device("meta"):
        fresh = LlamaForCausalLM(loaded.config)
    fresh.load_state_dict(loaded.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.to(torch.bfloat16)
    fresh.generation_config = loaded.generation_config
    fresh.generation_config.eos_token_id = tokenizer.eos_token_id
    fresh.config.eos_token_id = tokenizer.eos_token_id
    fresh.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    torch.set_num_threads(1)
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
