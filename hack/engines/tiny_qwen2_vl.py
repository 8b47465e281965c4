"""Builds a tiny random Qwen2-VL: `tiny_qwen2_vl.py FOLDER`, in the environment of transformers.

It stands in for GME, which is 4 GB: the same classes, tokens and files, 0.2 million parameters. Its vectors mean
nothing, but that they are computed right can be tested: batched as alone, and as transformers' own code does it.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
VOCABULARY = 512


def tokenizer() -> PreTrainedTokenizerFast:
    """Make one of bytes: every text has tokens, and no two texts the same."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>")  # noqa: S106


def config(ids: dict[str, int]) -> Qwen2VLConfig:
    """Say how small it is."""
    return Qwen2VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


def build(folder: Path) -> None:
    """Write config, safetensors, tokenizer and image processor."""
    torch.manual_seed(0)
    words = tokenizer()
    ids = {token: words.convert_tokens_to_ids(token) for token in SPECIAL}
    model = Qwen2VLForConditionalGeneration(config(ids))
    for weight in model.parameters():
        if weight.dim() > 1:  # as made, they are so small that all inputs look alike
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    Qwen2VLImageProcessorPil(patch_size=14, temporal_patch_size=2, merge_size=2).save_pretrained(folder)
    # GME says how many tokens an image has at least and at most.
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "min_image_tokens": 4, "max_image_tokens": 64}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    build(Path(sys.argv[1]))
