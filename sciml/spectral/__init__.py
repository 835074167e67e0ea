"""Fourier pseudo-spectral discretizations of evolving equations on periodic grids."""

from .operator import FourierOperator as FourierOperator
from .system import SpectralSystem as SpectralSystem
from .system import discretize_spectral as discretize_spectral
