"""The commands of `python -m pspnet_repro`, one module each with add(commands) and its run."""
