"""Builds the images: which (catalog), from what (inputs, context), on which base (base), with which engine (engine).

`hack.images.api` is what the demo, the tests and the command line use.
"""
