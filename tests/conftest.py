"""Settings for all tests."""

import os

import hypothesis
import matplotlib

matplotlib.use("Agg")

hypothesis.settings.register_profile("dev", max_examples=20, derandomize=True, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=30, derandomize=True, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=500, deadline=None)
_IN_CI = os.environ.get("CI", "").lower() in ("1", "true")
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if _IN_CI else "dev"))
