"""The theory: networks of infinite width. Numpy and scipy only."""
