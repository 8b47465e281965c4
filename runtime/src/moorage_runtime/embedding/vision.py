"""Qwen2-VL as an embedding model, as GME uses it: text, images and both in one space.

An input is a chat of one turn, its vector the state of the last token, of unit length. An instruction takes the place
of the system's words; GME's training used one for queries only. The chat is put together from tokens, never from text:
whatever a client writes is text, also where it looks like a token of the chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen2VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from moorage_common.facts import LoadError
from moorage_runtime.complete import check_complete
from moorage_runtime.embedding.config import ChildConfig, Input, InvalidInput, Prepared, TooLong, each
from moorage_runtime.embedding.texts import rows
from moorage_runtime.errors import LoadFailure

SYSTEM: Final = "You are a helpful assistant."
MIN_IMAGE_TOKENS: Final = 256
MAX_IMAGE_TOKENS: Final = 1280
"""GME's bounds, where its config does not say others."""

TOKENS: Final = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|endoftext|>")


class VisionModel:
    """A folder of Qwen2-VL."""

    padded = True
    sees = True

    def __init__(self, config: ChildConfig, device: str) -> None:
        """Load it; raise LoadFailure where weights or tokens are missing."""
        dtype = torch.float32 if device == "cpu" else "auto"
        model, loading = Qwen2VLModel.from_pretrained(
            config.path, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        check_complete(loading)
        self.model = model.to(device).eval()
        self.device = device
        self.max_tokens = config.max_tokens
        self.dimension = int(model.config.get_text_config().hidden_size)
        tokenizer = AutoTokenizer.from_pretrained(config.path, local_files_only=True, trust_remote_code=False)
        self._tokenizer = tokenizer.backend_tokenizer
        found = [self._tokenizer.token_to_id(token) for token in TOKENS]
        if None in found:
            raise LoadFailure(LoadError.MODEL_FILE_INVALID, f"the tokenizer does not know {TOKENS[found.index(None)]}")
        self._start, self._end, self._vision_start, self._vision_end, self._image, self._last = map(int, found)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._images = Qwen2VLImageProcessorPil.from_pretrained(config.path, local_files_only=True)
        self._side = side = self._images.patch_size * self._images.merge_size
        least = int(getattr(model.config, "min_image_tokens", MIN_IMAGE_TOKENS)) * side * side
        most = int(getattr(model.config, "max_image_tokens", MAX_IMAGE_TOKENS)) * side * side
        self._size = {"shortest_edge": least, "longest_edge": most}

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Give the size to which the processor would scale an image; of that size it leaves it as it is."""
        low, high = self._size["shortest_edge"], self._size["longest_edge"]
        rows, columns = smart_resize(height, width, factor=self._side, min_pixels=low, max_pixels=high)
        return columns, rows

    def prepare(self, inputs: Sequence[Input]) -> list[Prepared]:
        """Make the tokens of each chat, and the patches of its image."""
        return each(self._prepared, inputs)

    def _prepared(self, one: Input) -> Prepared:
        if one.tokens is not None:
            raise InvalidInput("this model takes text, not tokens: it puts a chat around it")
        pixels, grid, image = None, None, []
        if one.image is not None:
            pixels, grid = self._patches(one.image)
            one.image = None  # its patches may wait for long
            count = int(grid[0].prod()) // self._images.merge_size**2
            image = [self._vision_start, *[self._image] * count, self._vision_end]
        head, text, tail = self._chat(one, has_image=bool(image))
        tokens = len(head) + len(image) + len(text) + len(tail)
        if tokens > self.max_tokens:
            if not one.truncate or tokens - len(text) >= self.max_tokens:
                raise TooLong(tokens, self.max_tokens)
            text = text[: self.max_tokens - tokens]
        return Prepared(np.asarray([*head, *image, *text, *tail], dtype=np.int64), pixels=pixels, grid=grid)

    def _patches(self, image: Any) -> tuple[Any, Any]:
        """Cut an image into patches of bytes: an eighth of what the model takes, which is made when it takes them."""
        made = self._images(images=[image], size=self._size, do_rescale=False, do_normalize=False, return_tensors="pt")
        frames = made["pixel_values"].view(-1, 3, self._images.temporal_patch_size, self._images.patch_size**2)
        return frames[:, :, 0].to(torch.uint8), made["image_grid_thw"]  # the frames of a still image are the same

    def _normalized(self, patches: Any) -> Any:
        """Make of patches what the processor makes of them."""
        own, device = self._images, self.device
        values = patches.to(device, torch.float32)
        if own.do_rescale:
            values = values * own.rescale_factor
        if own.do_normalize:
            mean, std = (torch.tensor(one, device=device).view(1, 3, 1) for one in (own.image_mean, own.image_std))
            values = (values - mean) / std
        frames = values[:, :, None].expand(-1, -1, own.temporal_patch_size, -1)
        return frames.reshape(len(patches), -1).to(self.model.dtype)

    def _chat(self, one: Input, *, has_image: bool) -> tuple[list[int], list[int], list[int]]:
        """Give what stands before an image, the text, and what stands behind it."""
        system = [self._start, *self._ids(f"system\n{one.instruction or SYSTEM}"), self._end, *self._ids("\n")]
        tail = [self._end, *self._ids("\n"), self._start, *self._ids("assistant\n"), self._last]
        if has_image:
            return [*system, self._start, *self._ids("user\n")], self._ids(one.text or ""), tail
        # Without an image between them the two are one piece of text, and so are their tokens.
        return [*system, self._start], self._ids(f"user\n{one.text or ''}"), tail

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def compute(self, prepared: Sequence[Prepared]) -> Sequence[Any]:
        """Give the state of the last token of each chat."""
        longest = max(len(one.ids) for one in prepared)
        ids = np.full((len(prepared), longest), self._last, dtype=np.int64)
        mask = np.zeros((len(prepared), longest), dtype=np.int64)
        for row, one in enumerate(prepared):
            ids[row, : len(one.ids)], mask[row, : len(one.ids)] = one.ids, 1
        tokens, seen = torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)
        images = [one for one in prepared if one.pixels is not None]
        pixels = self._normalized(torch.cat([one.pixels for one in images])) if images else None
        grid = torch.cat([one.grid for one in images]).to(self.device) if images else None
        kinds = (tokens == self._image).to(torch.int32)
        with torch.inference_mode():
            state = self.model(
                input_ids=tokens,
                attention_mask=seen,
                position_ids=self._positions(tokens, seen, kinds, grid),
                pixel_values=pixels,
                image_grid_thw=grid,
                mm_token_type_ids=kinds,
                use_cache=False,
            ).last_hidden_state
            last = torch.from_numpy(mask.sum(axis=1) - 1).to(self.device)
            vectors = state[torch.arange(len(prepared), device=self.device), last].float()
        return rows(torch.nn.functional.normalize(vectors, dim=1))

    def _positions(self, tokens: Any, seen: Any, kinds: Any, grid: Any) -> Any:
        """Give the positions ourselves: the model would take those of an earlier batch for a batch without images."""
        if grid is None:
            return torch.arange(tokens.shape[1], device=self.device).expand(3, *tokens.shape)
        found, _ = self.model.get_rope_index(tokens, mm_token_type_ids=kinds, image_grid_thw=grid, attention_mask=seen)
        return found

    def memory_bytes(self) -> int | None:
        """Give what torch holds of the accelerator."""
        return None if self.device == "cpu" else int(torch.cuda.memory_reserved())
