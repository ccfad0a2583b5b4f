"""Tell classes of pictures apart."""

from image_cnn.classifier import ImageClassifier

__all__ = ["ImageClassifier"]
