"""How many replicas a model has, by the use that the gateways report."""
