"""Recognise handwritten digits in pictures of 8 by 8 pixels."""

from digits_classifier.classifier import DigitsClassifier

__all__ = ["DigitsClassifier"]
