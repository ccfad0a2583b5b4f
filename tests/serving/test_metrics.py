"""Figures tell how things are, not how they were."""

from ai4sdk.serving.metrics import Metrics


def test_drift_that_is_no_longer_known_is_not_told_as_it_was():
    metrics = Metrics()
    known = {"m": {"1": {"gauges": {"state": 2}, "counters": {"samples": 5}}}}
    told = metrics.text(known).decode()
    assert 'ai4sdk_drift_state{model="m",version="1"} 2.0' in told
    assert 'ai4sdk_drift_samples{model="m",version="1"} 5.0' in told
    assert "ai4sdk_drift_state{" not in metrics.text({"m": {"2": {"state": "unknown", "why": "it is busy"}}}).decode()
    assert 'ai4sdk_drift_state{model="m",version="1"} 2.0' in metrics.text(known).decode()
