"""Networks: names, weights, training, and what goes through their layers."""
