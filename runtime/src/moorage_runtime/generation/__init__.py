"""Text from models in the Hugging Face form, by transformers with continuous batching.

`front` checks the model and makes the plan. In the child: `child` loads (`load`) and listens, `service` answers
requests (`request` reads them, `choice` makes text of tokens by `text`, `answers` writes them), `batch` runs
transformers' own continuous batching, into which `sampling` puts each request's way of choosing tokens.
"""
