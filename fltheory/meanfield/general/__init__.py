"""Two hidden layers, any input kernel, bounded phi: docs/theory.md section 5.7."""
