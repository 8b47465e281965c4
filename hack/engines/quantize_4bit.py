"""Quantizes a model to 4 bits: `quantize_4bit.py SOURCE FOLDER gptq|awq`; it runs in the environment of gptqmodel.

GPTQ (arXiv 2210.17323) rounds the weights of a layer one column after the other, and lets those that
are left make good the error as it shows on texts. AWQ (arXiv 2306.00978) scales what texts make large
before it rounds. The texts are those of Python's own manual, which is everywhere.
"""

import os
import sys
from pathlib import Path
from pydoc_data.topics import topics

# gptqmodel divides its work by the number of processors, and fails with two.
os.cpu_count = lambda: 4

from gptqmodel import GPTQModel, QuantizeConfig  # noqa: E402 - it counts processors while it is imported

TEXTS = 16
LONGEST = 512
"""Characters of a text."""
GROUP = 64
"""Weights with one scale; it has to divide the rows of every matrix, and those of SmolLM2 have 576."""


FORMATS = {"gptq": "gptq", "awq": "gemm"}
"""How the 4 bits are packed: as engines read them."""


def quantize(source: Path, target: Path, scheme: str) -> None:
    """Write the quantized model with its tokenizer."""
    wanted = QuantizeConfig(bits=4, group_size=GROUP, quant_method=scheme, format=FORMATS[scheme])
    model = GPTQModel.load(str(source), wanted, device="cpu")
    texts = [text[:LONGEST] for _, text in sorted(topics.items())]
    model.quantize(texts[:TEXTS], batch_size=1)
    model.save(str(target))


if __name__ == "__main__":
    quantize(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
