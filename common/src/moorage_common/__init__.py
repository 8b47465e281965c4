"""What operator, runtime and gateway share; imported by each, importing none of them."""
