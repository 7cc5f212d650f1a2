"""Deep networks of ReLU and kin on orthogonal inputs, docs/theory.md section 6."""
