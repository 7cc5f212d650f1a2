"""Numerics that know no physics: argument checks, array namespaces, Gaussian averages, Newton."""
