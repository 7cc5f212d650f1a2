"""Figures of representations: one room a kind. Representations in, axes out; nothing long is computed."""

from fltheory.plotting.activations import plot_activations as plot_activations
from fltheory.plotting.coding_schemes import plot_coding_schemes as plot_coding_schemes
from fltheory.plotting.comparison import plot_comparison as plot_comparison
from fltheory.plotting.convergence import plot_convergence as plot_convergence
from fltheory.plotting.drift import plot_drift as plot_drift, plot_overlap as plot_overlap
from fltheory.plotting.kernels import plot_kernels as plot_kernels
from fltheory.plotting.overview import plot_overview as plot_overview
from fltheory.plotting.readouts import plot_readouts as plot_readouts
from fltheory.plotting.traces import plot_ranks as plot_ranks, plot_traces as plot_traces
