"""Joint expectation propagation for one neuron: its preactivations and its readout at once.

The law of a neuron at fixed dual field, docs/theory.md (3), is a Gaussian in z = F g and h = t a
times one factor exp(h_mu phi(z_mu)) an input. EP replaces each factor by a bivariate Gaussian
"site" in (z_mu, h_mu) (docs/theory.md, section 5). Bivariate Gaussians are arrays of shape
(5, B, P): for B branches and P inputs, either the moments (V_zz, V_zh, V_hh, m_z, m_h) or the
natural parameters (precision, precision times mean) in the same order.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Self

import attrs
import numpy as np
from attrs import frozen

from fltheory.nonlinearity import Nonlinearity
from fltheory.numerics.positive import cholesky_batch
from fltheory.numerics.validation import Array, Booleans, Integers

_UNIT = np.array([1.0, 0.0, 1.0, 0.0, 0.0])[:, None, None]  # a standard bivariate Gaussian
_PRECISIONS = np.array([1.0, 1.0, 1.0, 0.0, 0.0])[:, None, None]
_FLOOR = 1e-10  # variance left to an input without any, so that its site stays defined


def invert(gaussians: Array) -> Array:
    """From moments to natural parameters or back: the same map, its own inverse."""
    zz, zh, hh, z, h = gaussians
    adjoint = np.stack([hh, -zh, zz, hh * z - zh * h, zz * h - zh * z])
    return np.asarray(adjoint / (zz * hh - zh * zh))


def is_proper(gaussians: Array) -> Booleans:
    """Whether each covariance (or precision) is positive, shape (B, P)."""
    zz, zh, hh, _, _ = gaussians
    return np.asarray(np.isfinite(gaussians).all(0) & (zz > 0) & (hh > 0) & (zz * hh > zh * zh))


def _log_norm(moments: Array) -> Array:
    """Log partition function of exp(-u.L u/2 + e.u), up to log 2 pi, from its moments."""
    zz, zh, hh, z, h = moments
    det = zz * hh - zh * zh
    return np.asarray(0.5 * np.log(det) + 0.5 * (hh * z * z - 2 * zh * z * h + zz * h * h) / det)


@frozen(eq=False)
class Tilted:
    """Moments of each input's exact factor times its cavity.

    ``covariance_z`` and ``covariance_h`` are those of phi with z and h; all (B, P), but for
    ``moments`` (5, B, P).
    """

    log_partition: Array
    moments: Array
    activation: Array
    activation_variance: Array
    covariance_z: Array
    covariance_h: Array


@frozen(eq=False)
class BranchMoments:
    """What EP knows of each of B branches, at a fixed dual field.

    Attributes
    ----------
    log_partition, change
        log Z of the branch and the last relative change of its moments, (B,).
    proper
        Whether all its Gaussians are, (B,).
    latent_mean, latent_covariance, latent_root
        Of (g, alpha), with z = F g and a = sigma_a alpha: (B, q + m) and (B, q + m, q + m), the
        last the covariance's Cholesky factor.
    readout, readout_covariance
        Of a: (B, m), (B, m, m).
    activations, activation_variance
        Mean and variance of phi(z): (B, P).
    loadings
        U, the regression of phi(z_mu) on the latent: (B, P, q + m).
    unexplained
        rho, the variance of phi(z_mu) that this regression leaves, (B, P).
    outputs
        <phi a^T>, (B, P, m).
    """

    log_partition: Array
    change: Array
    proper: Booleans
    latent_mean: Array
    latent_covariance: Array
    latent_root: Array
    readout: Array
    readout_covariance: Array
    activations: Array
    activation_variance: Array
    loadings: Array
    unexplained: Array
    outputs: Array

    def __len__(self) -> int:
        return len(self.log_partition)

    def select(self, index: Integers | Booleans) -> Self:
        """Only these branches."""
        return type(self)(*(part[index] for part in attrs.astuple(self, recurse=False)))

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """All branches of several."""
        fields = zip(*(attrs.astuple(part, recurse=False) for part in parts), strict=True)
        return cls(*(np.concatenate(field) for field in fields))

    def output_factor(self, branch: int, scale: float) -> Array:
        """G with Cov(phi_mu a_k) = G G^T + diag(rho) a a^T inside a branch, (P m, q + m).

        ``scale`` is sigma_a.
        """
        root = self.latent_root[branch]
        readout = self.readout[branch]
        n_latent = len(root) - len(readout)
        factor = (self.loadings[branch] @ root)[:, None, :] * readout[:, None]
        factor += self.activations[branch][:, None, None] * (scale * root[n_latent:])
        return np.asarray(factor.reshape(-1, len(root)))


@frozen(eq=False)
class JointEP:
    """EP at one dual field, on a batch of branches.

    Attributes
    ----------
    factor
        F, shape (P, q), with K = F F^T.
    field
        t, shape (P, m).
    readout_variance
        sigma_a^2.
    power
        1 for EP; below, power EP, which removes and matches that share of a site.
    """

    factor: Array
    field: Array
    readout_variance: float
    nonlinearity: Nonlinearity
    power: float = 1.0

    @cached_property
    def _scaled_field(self) -> Array:
        return math.sqrt(self.readout_variance) * self.field

    def run(
        self, sites: Array, *, tolerance: float, max_iterations: int = 60, damping: float = 1.0
    ) -> tuple[Array, Array]:
        """Iterate to a fixed point, each branch until its moments change by less than ``tolerance``.

        A branch that gets worse is damped more; a site whose cavity is no Gaussian is weakened.

        Returns
        -------
        tuple
            Sites (5, B, P) and the last relative change of each branch's moments (B,).
        """
        sites, n_branches = sites.copy(), sites.shape[1]
        active = np.arange(n_branches)
        step, change = np.full(n_branches, damping), np.full(n_branches, np.inf)
        with np.errstate(all="ignore"):
            for _ in range(max_iterations):
                current = sites[:, active]
                proposal, proper, moved = self._update(current)
                slower = np.maximum(0.6 * step[active], 0.1)
                faster = np.minimum(1.05 * step[active], damping)
                step[active] = np.where(moved > 1.5 * change[active], slower, faster)
                change[active] = moved
                retreat = -0.3 * _PRECISIONS * current
                advance = step[active][:, None] * (proposal - current)
                sites[:, active] = current + np.where(proper, advance, retreat)
                active = active[(moved >= tolerance) | ~proper.all(1)]
                if not active.size:
                    break
        return sites, change

    def moments(self, sites: Array, change: Array) -> BranchMoments:
        """Everything about the branches that these sites describe."""
        with np.errstate(all="ignore"):
            return self._moments(sites, change)

    def _moments(self, sites: Array, change: Array) -> BranchMoments:
        covariance, mean, shift = self._posterior(sites)
        root, positive = cholesky_batch(covariance)
        half_log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
        log_global = 0.5 * (mean * shift).sum(1) + half_log_det
        marginals = self._marginals(covariance, mean)
        _, cavity, proper = self._cavities(sites, marginals)
        tilted = self._tilt(cavity)
        local = tilted.log_partition + _log_norm(cavity) - _log_norm(marginals)
        log_partition = log_global + local.sum(1) / self.power

        zz, zh, hh, _, _ = marginals
        det = zz * hh - zh * zh
        slope_z = (hh * tilted.covariance_z - zh * tilted.covariance_h) / det
        slope_h = (zz * tilted.covariance_h - zh * tilted.covariance_z) / det
        explained = slope_z * tilted.covariance_z + slope_h * tilted.covariance_h
        loadings = np.concatenate(
            [slope_z[..., None] * self.factor, slope_h[..., None] * self._scaled_field], axis=-1
        )
        scale, rank = math.sqrt(self.readout_variance), self.factor.shape[1]
        readout = scale * mean[:, rank:]
        return BranchMoments(
            log_partition=log_partition,
            change=change,
            proper=proper.all(1) & positive & np.isfinite(log_partition),
            latent_mean=mean,
            latent_covariance=covariance,
            latent_root=root,
            readout=readout,
            readout_covariance=self.readout_variance * covariance[:, rank:, rank:],
            activations=tilted.activation,
            activation_variance=tilted.activation_variance,
            loadings=loadings,
            unexplained=np.maximum(tilted.activation_variance - explained, 0.0),
            outputs=tilted.activation[..., None] * readout[:, None, :]
            + scale * (loadings @ covariance[:, :, rank:]),
        )

    def _posterior(self, sites: Array) -> tuple[Array, Array, Array]:
        """Covariance, mean and precision times mean of the latent (g, alpha)."""
        zz, zh, hh, z, h = sites
        factor, field = self.factor, self._scaled_field
        rank, n_latent = factor.shape[1], factor.shape[1] + field.shape[1]
        precision = np.empty((sites.shape[1], n_latent, n_latent))
        precision[:, :rank, :rank] = (factor.T * zz[:, None, :]) @ factor
        precision[:, :rank, rank:] = (factor.T * zh[:, None, :]) @ field
        precision[:, rank:, :rank] = precision[:, :rank, rank:].swapaxes(1, 2)
        precision[:, rank:, rank:] = (field.T * hh[:, None, :]) @ field
        precision += np.eye(n_latent)
        shift = np.concatenate([z @ factor, h @ field], axis=1)
        try:
            covariance = np.linalg.inv(precision)
        except np.linalg.LinAlgError:  # one is singular: none is usable, and all sites are weakened
            covariance = np.full_like(precision, np.nan)
        return covariance, (covariance @ shift[..., None])[..., 0], shift

    def _marginals(self, covariance: Array, mean: Array) -> Array:
        """Moments of (z_mu, h_mu), (5, B, P)."""
        factor, field = self.factor, self._scaled_field
        rank = factor.shape[1]
        rows = factor @ covariance[:, :rank, :]  # Cov(z_mu, latent)
        zz = (rows[:, :, :rank] * factor).sum(-1)
        zh = (rows[:, :, rank:] * field).sum(-1)
        hh = ((field @ covariance[:, rank:, rank:]) * field).sum(-1)
        zz, hh = (np.where(np.abs(v) < _FLOOR, _FLOOR, v) for v in (zz, hh))
        return np.stack([zz, zh, hh, mean[:, :rank] @ factor.T, mean[:, rank:] @ field.T])

    def _cavities(self, sites: Array, marginals: Array) -> tuple[Array, Array, Booleans]:
        """Marginals without (a share of) their own site: natural, moments, and whether proper."""
        natural = invert(marginals) - self.power * sites
        proper = is_proper(natural) & is_proper(marginals)
        natural = np.where(proper, natural, _UNIT)
        return natural, invert(natural), proper

    def _update(self, sites: Array) -> tuple[Array, Booleans, Array]:
        """New sites (5, B, P), which of them are usable (B, P), and the change of moments (B,)."""
        covariance, mean, _ = self._posterior(sites)
        marginals = self._marginals(covariance, mean)
        natural, cavity, proper = self._cavities(sites, marginals)
        moments = self._tilt(cavity).moments
        proper &= is_proper(moments)
        moments = np.where(proper, moments, _UNIT)
        sites = (invert(moments) - natural) / self.power
        old_sd = np.sqrt(np.abs(marginals[[0, 2]]))
        change = np.abs(moments[3:] - marginals[3:]) / old_sd
        change += np.abs(moments[[0, 2]] / marginals[[0, 2]] - 1.0)
        return sites, proper, np.where(proper, change.sum(0), 1.0).max(1)

    def _tilt(self, cavity: Array) -> Tilted:
        """Cavity times exp(power h phi(z)): h exactly, z on a uniform grid."""
        power = self.power
        zz, zh, hh, z, h = cavity
        sd, slope = np.sqrt(zz), zh / zz
        spread = hh - zh * slope  # variance of h given z
        nodes, log_weights = self.nonlinearity.gaussian_rule(z, sd, half_width=7.0, spacing=0.35)
        phi = self.nonlinearity(z[..., None] + sd[..., None] * nodes)  # (B, P, G)
        exponent = phi * (0.5 * power * power * spread[..., None])
        exponent += power * (h[..., None] + (slope * sd)[..., None] * nodes)
        exponent *= phi
        exponent += log_weights
        peak = exponent.max(-1)
        weights = np.exp(exponent - peak[..., None])
        total = weights.sum(-1)
        weights /= total[..., None]
        x, xx = _averages(weights, nodes), _averages(weights, nodes**2)
        weights *= phi
        mean = weights.sum(-1)
        var_x, cov_x = xx - x * x, _averages(weights, nodes) - mean * x
        variance = np.maximum((weights * phi).sum(-1) - mean * mean, 0.0)
        lift = power * spread  # of h, per unit of phi
        moments = np.stack(
            [
                zz * var_x,
                sd * (slope * sd * var_x + lift * cov_x),
                spread + (slope * sd) ** 2 * var_x + 2 * slope * sd * lift * cov_x + lift**2 * variance,
                z + sd * x,
                h + slope * sd * x + lift * mean,
            ]
        )
        return Tilted(
            log_partition=np.log(total) + peak,
            moments=moments,
            activation=mean,
            activation_variance=variance,
            covariance_z=sd * cov_x,
            covariance_h=slope * sd * cov_x + lift * variance,
        )


def _averages(weights: Array, values: Array) -> Array:
    """Sums over the nodes, of weights (..., G) and values (G,) or (..., G)."""
    if values.ndim == 1:
        return np.asarray(weights @ values)
    return np.asarray(np.einsum("...g,...g->...", weights, values))
