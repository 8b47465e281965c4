"""What the operator knows of each engine. Adding one: a module here and a line in `base.ENGINES`."""
