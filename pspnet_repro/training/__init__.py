"""Parts of a training beside its steps: its tests along the way, its log, its checks."""
