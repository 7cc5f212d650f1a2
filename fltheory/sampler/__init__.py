"""Markov chain samplers for any differentiable density: nothing here knows a network."""
