"""What went wrong, and what a person can do about it."""


class EngineError(Exception):
    """An environment or a model cannot be made; the text is for a person."""
