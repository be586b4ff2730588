"""Callbacks: when to measure, and where to write."""

from keras_pergrad.callbacks._monitor import GradientMonitor

__all__ = ["GradientMonitor"]
