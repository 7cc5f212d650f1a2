"""Networks of finite width, sampled with torch."""

from fltheory.network.samples import PosteriorSamples
from fltheory.network.sampling import sample_network

__all__ = ["PosteriorSamples", "sample_network"]
