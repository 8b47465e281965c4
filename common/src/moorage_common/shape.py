"""The shape of a model: what the header of its files says of its size. The runtime reads it, the operator keeps it.

It is all that an estimate of memory needs, so an estimate can be made anew for another context length or another number
of requests while no pod runs. Nothing of it is measured.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

MAX_TEXT: Final = 64
"""Characters of a name in a shape."""

Count = Annotated[int, Meta(ge=0, le=2**62)]
"""A number of a header, which may be anybody's: it must fit into the API's integers."""

Text = Annotated[str, Meta(max_length=MAX_TEXT)]


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Sizes are bytes, lengths are tokens; a number that the files do not say is 0, a word None.

    KV numbers: how many numbers one token leaves in the KV cache, which is the sum over layers of kv_heads * (length of
    a key + length of a value). Layers that see the whole context are told apart from those that see a window of it.
    """

    architecture: Text
    stored_bytes: Count
    """All tensors as the files hold them."""

    quantization: Text | None = None
    """What the files hold, in the words of spec.quantization where those have one."""

    tensor_bytes: dict[Text, Count] = {}
    """`stored_bytes` by type of number."""

    parameters: Count = 0
    linear_parameters: Count = 0
    """Those in matrices that an engine may quantize while it loads: of the layers, not of embeddings and the output."""

    repacked_bytes: Count = 0
    """Of a GGUF file: tensors of types that llama.cpp keeps a second time, rearranged, when it runs on the CPU."""

    context_length: Count = 0
    """Tokens that the model was trained with."""

    layers: Count = 0
    embedding: Count = 0
    feed_forward: Count = 0
    """Width inside a layer; of a mixture of experts, of all that work on one token together."""

    heads: Count = 0
    kv_heads: Count = 0
    head_size: Count = 0
    vocabulary: Count = 0
    kv_numbers: Count = 0
    window: Count = 0
    window_kv_numbers: Count = 0
