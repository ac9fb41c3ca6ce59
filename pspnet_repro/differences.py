"""In what two settings differ."""

_CAUSES = {"list_sha256": ", as images, --label-map or --ignore were others"}


def difference(ours: dict, saved: dict) -> str:
    """The first setting in which two dictionaries of plain data differ, in words, or ""."""
    ours, saved = flat_settings(ours), flat_settings(saved)
    for key in sorted({*ours, *saved}):
        if ours.get(key) != saved.get(key):
            return f"{key} = {saved.get(key)!r}, not {ours.get(key)!r}{_CAUSES.get(key, '')}"
    return ""


def flat_settings(settings: dict, prefix: str = "") -> dict:
    """{"model": {"width": 1}} -> {"model.width": 1}."""
    flat = {}
    for key, value in settings.items():
        flat |= (flat_settings(value, f"{prefix}{key}.") if isinstance(value, dict)
                 else {prefix + key: value})
    return flat
