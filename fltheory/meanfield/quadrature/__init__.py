"""One hidden layer on a diagonal input kernel, by exact integrals: docs/theory.md section 5."""
