"""Moves of single neurons of networks with one hidden layer, which know what the theory knows."""
