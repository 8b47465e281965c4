"""Environments of the engines that are too big for the workspace's own, and small models in the Hugging Face form.

`environments` makes a virtual environment from pins in this folder, `models` converts what `hack.models` fetches. Both
keep what they make outside the checkout, by a digest of what it is made of.
"""
