"""Tell classes of recordings apart."""

from sound_cnn.classifier import SoundClassifier

__all__ = ["SoundClassifier"]
