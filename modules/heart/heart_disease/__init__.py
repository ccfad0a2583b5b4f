"""Tell from a check-up whether a heart is ill, with the patients of four hospitals."""

from heart_disease.classifier import HeartDisease
from heart_disease.patients import FEATURES, HOSPITALS, patients

__all__ = ["FEATURES", "HOSPITALS", "HeartDisease", "patients"]
