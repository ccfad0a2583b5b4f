"""Records of a run beside its own folder: MLflow.

A training never talks to MLflow. It appends to files of its run directory, and a process of its own,
``python -m ai4sdk.tracking RUN_DIR``, ships what stands there. Importing this package costs nothing; MLflow is
imported where it is used, in that process.
"""

from ai4sdk.tracking.catch_up import SyncReport, pending, sync
from ai4sdk.tracking.settings import tracking_uri_of

__all__ = ["SyncReport", "pending", "sync", "tracking_uri_of"]
