"""Federated learning: Flower's strategies and apps around any LightningModule; rounds that survive a kill."""
