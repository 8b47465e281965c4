"""Run by test_loop.py in the engine's environment: a loop that generates and dies, with a tiny random model."""

import asyncio
from unittest.mock import patch

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from moorage_runtime.generation.batch import Batch
from moorage_runtime.generation.choice import GenerationFailed
from moorage_runtime.generation.config import ChildConfig
from moorage_runtime.generation.request import Sampling
from moorage_runtime.generation.sampling import Chooser

GREEDY = Sampling(temperature=0)


def tiny() -> LlamaForCausalLM:
    """Make a model of some thousand parameters."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


async def said(batch: Batch, prompt: list[int], limit: int) -> list[int]:
    """Give the tokens of an answer."""
    return [token.number async for token in batch.submit(prompt, GREEDY, limit)]


async def main() -> None:
    """Whatever is not as it should be raises."""
    batch = Batch(tiny(), ChildConfig(path="", name="tiny", context=256, slots=4, threads=1), [])
    batch.start(warm=False)
    # All places at their full context, twice over: nobody is pushed out, and nobody waits for ever.
    prompts = [[number] * (100 + number) for number in range(1, 9)]
    together = await asyncio.gather(*(said(batch, prompt, 256 - len(prompt)) for prompt in prompts))
    assert [len(tokens) for tokens in together] == [256 - len(prompt) for prompt in prompts]
    alone = await said(batch, prompts[0], 256 - len(prompts[0]))
    assert alone == together[0], "a request in a batch says what it says alone"
    await asyncio.wait_for(batch.turns(), 5)

    left = batch.submit([1, 2, 3], GREEDY, 200)
    left.cancel()
    assert [token async for token in left] == []
    assert batch.running == 0

    def broken(chooser: Chooser, scores: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("as ordered")

    patch.object(Chooser, "__call__", broken).start()
    other = asyncio.create_task(said(batch, [1, 2], 200))
    failing = batch.submit([1, 2, 3], Sampling(temperature=1), 10)
    for waiting in (anext(aiter(failing)), other):
        try:
            await asyncio.wait_for(waiting, 5)
        except GenerationFailed as failure:
            assert "as ordered" in str(failure), failure
        else:
            raise AssertionError("a request outlived its loop")
    async with asyncio.timeout(2):
        while batch.alive:  # noqa: ASYNC110 - a thread that ends sets no event
            await asyncio.sleep(0.01)
    for hopeless in (lambda: batch.submit([1], GREEDY, 1), None):
        try:
            hopeless() if hopeless else await batch.turns()
        except GenerationFailed:
            continue
        raise AssertionError("a dead loop took something")
    print("as it should be")


if __name__ == "__main__":
    asyncio.run(main())
