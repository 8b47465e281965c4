"""Embeddings by the engine `transformers`: `front` plans, `child` serves; the batching between them knows no model."""
