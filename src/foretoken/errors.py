"""Every exception that Foretoken raises on purpose, and how a message shows a value. Knows nothing of the rest of the
package."""


class ForetokenError(Exception):
    """Root of all our errors; the message says what, got, expected, and what to do."""


class ConfigError(ForetokenError):
    """A config.json that contradicts itself, or says something we do not know."""


class WeightsError(ForetokenError):
    """Model files that are missing, damaged, or do not fit their config or each other."""


class ShapeError(ForetokenError):
    """An array with the wrong shape or type at an op's door."""


class CacheError(ForetokenError):
    """A cache asked for something it cannot do, for example to undo more than the last pass."""


class DraftError(ForetokenError):
    """A drafter that cannot guess from the state it was given."""


class InputError(ForetokenError):
    """A prompt or parameter of the caller's that cannot be honoured."""


class NoRepositoryError(InputError):
    """A name of which the hub has no repository, or none that this user may see."""


def shown(value: object) -> str:
    """A caller's value, fit for one line of a message: short, whatever it is."""
    try:
        return repr(value)[:40]
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists
        return f"of type {type(value).__name__} and too large to show"
