"""What is sampled for the composed figures, and how."""

from attrs import evolve, frozen

from fltheory.nonlinearity import Linear, Nonlinearity, ReLU, Sigmoid
from fltheory.posterior import DeepNetworkPosterior
from fltheory.prior import GaussianPrior
from fltheory.task import OrthogonalClassification

_RATIOS = (0.5, 0.25, 0.25)


@frozen
class Case:
    """A posterior, and how networks are drawn from it for a figure.

    Attributes
    ----------
    name
        Of the folder where its networks are saved.
    posterior
        What is sampled.
    n_warmup, n_draws, thin, n_chains
        As in ``DeepNetworkPosterior.sample``.
    is_annealed
        Whether chains are cooled down from the prior; else they begin at the final temperature, at draws
        from the prior. Slow cooling merges classes in deep sigmoidal networks.
    is_guided
        Whether the sampler is the posterior's own, with moves that the theory suggests, else ``HMC``.
    is_frozen
        Whether neurons of the last layer stay on the codes they happen on. The theory is then the one at
        the shares of codes of the networks.
    has_theory
        Whether the theory describes these networks.
    quick_size
        Inputs and width of the small version.
    time_step
        Of Langevin dynamics: small enough for the stiffest direction.
    """

    name: str
    posterior: DeepNetworkPosterior
    n_warmup: int
    n_draws: int = 20
    thin: int = 3
    n_chains: int = 2
    is_annealed: bool = True
    is_guided: bool = False
    is_frozen: bool = False
    has_theory: bool = True
    quick_size: tuple[int, int] = (12, 16)
    time_step: float = 0.03

    def quick(self) -> "Case":
        """A small version with a few short chains, to try out: nothing is learned from it.

        Beside the theory at its own shares of codes: there may be none at those of so few neurons.
        """
        n_samples, width = self.quick_size
        task = OrthogonalClassification(n_samples, _RATIOS)
        posterior = evolve(self.posterior.at_width(width), task=task)
        short = evolve(self, name=f"{self.name}-quick", n_warmup=20, n_draws=4, thin=1)
        return evolve(short, posterior=posterior, is_frozen=False)


def _classes(
    phi: Nonlinearity,
    width: int,
    n_samples: int,
    scaled_temperature: float,
    depth: int,
    scaling: str = "auto",
) -> DeepNetworkPosterior:
    """Three classes of orthogonal inputs, at a given N T."""
    return DeepNetworkPosterior(
        OrthogonalClassification(n_samples, _RATIOS),
        phi,
        prior=GaussianPrior(scaling=scaling),
        n_hidden_layers=depth,
        width=width,
        temperature=scaled_temperature / width,
    )


# Where structure is clearest, found by a scan: see docs/theory.md.
DEEP = (
    Case("deep-linear", _classes(Linear(), 100, 100, 0.003, 3), n_warmup=300, time_step=0.015),
    Case(
        "deep-sigmoid",
        _classes(Sigmoid(), 100, 100, 0.02, 3),
        n_warmup=200,
        is_annealed=False,
        is_frozen=True,
    ),
    # At this ratio of P to N single neurons take over, which they do not in the limit of the theory.
    Case(
        "deep-relu",
        _classes(ReLU(), 60, 120, 0.01, 3, scaling="none"),
        n_warmup=1200,
        has_theory=False,
    ),
)
SHALLOW = tuple(
    Case(
        f"shallow-{name}",
        _classes(phi, 200, 60, 0.03, 1),
        n_warmup=100,
        n_chains=4,
        is_guided=True,
        quick_size=(40, 48),  # on fewer inputs the theory of ReLU is harder
    )
    for name, phi in (("linear", Linear()), ("sigmoid", Sigmoid()), ("relu", ReLU()))
)
# Many more neurons than inputs: at P near N networks learn features in either scaling.
_WIDE = _classes(Sigmoid(), 300, 24, 0.02, 2)
_LAZY = evolve(_WIDE, readout_scaling="lazy", temperature=0.02)
SCALINGS = (
    Case("wide-lazy", _LAZY, n_warmup=150),
    Case("wide-non-lazy", _WIDE, n_warmup=150, is_annealed=False, is_frozen=True),
)
