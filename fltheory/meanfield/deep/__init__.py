"""Several hidden layers of a bounded nonlinearity on a diagonal input kernel: docs/theory.md section 5."""
