"""Observables of representations: codes, schemes, drift and alignment."""

from fltheory.coding.alignment import (
    Alignment as Alignment,
    KernelAlignment as KernelAlignment,
    align as align,
    kernel_alignment as kernel_alignment,
)
from fltheory.coding.codes import Codes as Codes, find_codes as find_codes, leading_order as leading_order
from fltheory.coding.drift import Drift as Drift, overlap as overlap, overlap_limit as overlap_limit
from fltheory.coding.fractions import CodeFractions as CodeFractions, code_fractions as code_fractions
from fltheory.coding.schemes import CodingScheme as CodingScheme, coding_scheme as coding_scheme
