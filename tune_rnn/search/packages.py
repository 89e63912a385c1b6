"""Which packages an algorithm imports, and whether they are there: those of the extra `bayes` need not be."""

from __future__ import annotations

from importlib.util import find_spec

from tune_rnn.errors import InputError

PACKAGES: dict[str, tuple[str, ...]] = {
    "hyperopt": ("hyperopt",),
    "optuna": ("optuna",),
    "gp": ("optuna",),
    "forest": ("smac",),
}


def check_packages(algorithm: str) -> None:
    """Raise InputError where a package is missing; none is imported."""
    missing = [package for package in PACKAGES.get(algorithm, ()) if find_spec(package) is None]
    if missing:
        rule = f"needs {missing[0]}, which is not installed"
        raise InputError("search.algorithm", rule, 'Install it: pip install "tune_rnn[bayes]"', algorithm)
