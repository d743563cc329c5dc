"""Which packages there are; everything else is in pyproject.toml.

In the checkout, denograd.meta and denograd.baselines are the folders meta/ and baselines/.
setuptools finds packages by itself only where folders are named like packages, and a list
by hand would forget new ones.
"""

from setuptools import find_packages, setup

OUTSIDE = ("meta", "baselines")

packages = find_packages(include=["denograd", "denograd.*"])
for folder in OUTSIDE:
    packages += [f"denograd.{name}" for name in find_packages(include=[folder, f"{folder}.*"])]

setup(packages=packages, package_dir={f"denograd.{folder}": folder for folder in OUTSIDE})
