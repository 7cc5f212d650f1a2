"""Clusters: as many as there are, and one in a cloud of any shape."""

from itertools import product

import numpy as np
import pytest

from fltheory.coding.clusters import find_clusters


def blobs(counts, distance, n_dimensions=3, seed=0):
    """Normal clouds whose centres are ``distance`` standard deviations apart, and whose each point is."""
    rng = np.random.default_rng(seed)
    members = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    centres = distance / np.sqrt(2) * np.eye(len(counts), n_dimensions)
    return centres[members] + rng.standard_normal((len(members), n_dimensions)), members


def same_partition(one, other):
    """Whether two lists of members name the same groups."""
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


# Clouds without clusters. None of 1680 normal, heavy-tailed and skewed clouds of 20, 35, 60 and 150 points in
# 2, 3, 6 and 12 dimensions was cut, so less than .3 % a cloud are (at 99 % confidence); of 560 flat ones,
# uniform in cubes and balls, one was.
CLOUDS = {
    "normal": lambda rng, n, d: rng.standard_normal((n, d)),
    "correlated": lambda rng, n, d: rng.standard_normal((n, d)) @ rng.standard_normal((d, d)),
    "uniform": lambda rng, n, d: rng.random((n, d)),
    "heavy tails": lambda rng, n, d: rng.standard_t(5, (n, d)),
    "skewed": lambda rng, n, d: rng.exponential(size=(n, d)),
}


@pytest.mark.parametrize("n", [20, 150])
@pytest.mark.parametrize("kind", CLOUDS)
def test_no_cluster_is_invented_in_one_cloud(kind, n):
    rng = np.random.default_rng(n)
    for n_dimensions in (2, 6):
        assert len(find_clusters(CLOUDS[kind](rng, n, n_dimensions)).centres) == 1


@pytest.mark.parametrize(("n", "n_dimensions"), [(20, 20), (20, 40), (40, 80)])
def test_no_cluster_is_invented_by_few_points_in_many_dimensions(n, n_dimensions):
    """In as many dimensions as points any two groups can be told apart."""
    for seed in range(5):
        cloud = np.random.default_rng(seed).standard_normal((n, n_dimensions))
        assert len(find_clusters(cloud).centres) == 1


@pytest.mark.parametrize(("n_dimensions", "count"), [(2, 20), (3, 20), (4, 10), (4, 60), (5, 20)])
def test_clusters_that_differ_in_several_ways_at_once(n_dimensions, count):
    """At all corners of a cube: half as many groups describe them better than any number between."""
    corners = np.array(list(product((0.0, 17.0), repeat=n_dimensions)))
    rng = np.random.default_rng(0)
    members = rng.permutation(np.repeat(np.arange(len(corners)), count))
    points = corners[members] + rng.standard_normal((len(members), n_dimensions))
    assert same_partition(find_clusters(points).assign(points), members)


@pytest.mark.parametrize("n_clusters", [13, 20, 40])
def test_many_clusters_are_counted_exactly(n_clusters):
    """Also where the first numbers tried leave the right one out."""
    points, members = blobs((12,) * n_clusters, distance=20.0, n_dimensions=n_clusters)
    assert same_partition(find_clusters(points).assign(points), members)


@pytest.mark.parametrize("counts", [(20, 12, 8), (100, 100), (150, 9), (300, 200, 60, 12)])
def test_clusters_are_recovered_exactly(counts):
    points, members = blobs(counts, distance=12.0, n_dimensions=5)
    clusters = find_clusters(points)
    assert same_partition(clusters.assign(points), members)
    assert clusters.separation == pytest.approx(12.0, rel=0.15)


def test_near_clusters_are_told_apart_by_many_points_alone():
    """At 4.5 standard deviations one point in 80 lies nearer to the other centre."""
    points, members = blobs((300, 300), distance=4.5)
    found = find_clusters(points).assign(points)
    assert found.max() == 1
    assert min((found == members).mean(), (found != members).mean()) < 0.03
    assert len(find_clusters(blobs((10, 10), distance=4.5)[0]).centres) == 1


def test_clusters_that_overlap_are_one_cloud():
    assert len(find_clusters(blobs((300, 300), distance=2.5)[0]).centres) == 1


def test_what_was_not_looked_at_is_assigned_too():
    points, members = blobs((1500, 900, 600), distance=12.0)
    assert same_partition(find_clusters(points).assign(points), members)


def test_the_order_and_the_units_do_not_matter():
    points, _ = blobs((60, 30, 12), distance=10.0)
    shuffle = np.random.default_rng(1).permutation(len(points))
    mixed = points @ np.array([[3.0, 0.2, 0.0], [0.0, 0.5, 0.1], [0.0, 0.0, 20.0]]) + 7.0
    first = find_clusters(points)
    members = first.assign(points)
    assert (find_clusters(points[shuffle]).assign(points) == members).all()
    other = find_clusters(mixed)
    assert same_partition(other.assign(mixed), members)
    assert other.separation == pytest.approx(first.separation, rel=1e-3)


def test_clean_and_constant_points():
    assert len(find_clusters(np.zeros((5, 3))).centres) == 1
    assert len(find_clusters(np.ones((1, 2))).centres) == 1
    clean = np.repeat(np.eye(3), (20, 10, 8), axis=0)
    assert same_partition(find_clusters(clean).assign(clean), clean.argmax(1))
