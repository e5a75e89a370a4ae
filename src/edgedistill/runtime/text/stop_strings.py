"""Stop strings on a stream of text: what could still become one is held back."""

from __future__ import annotations


class StopStrings:
    """Finds the first of several strings in text that comes in pieces.

    ``found`` is the string that ended the text, None so far.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """Text that is certain to come before any stop string; empty once one was found."""
        if self.found is not None:
            return ""
        if not self._stops:
            return text
        buffer = self._held + text
        # The stop string that is complete first ends the text, whatever longer one it might have become part of.
        ends = [(buffer.find(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in buffer]
        if ends:
            end, _, self.found = min(ends)
            self._held = ""
            return buffer[: end - len(self.found)]
        keep = len(buffer)
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(buffer)), 0, -1):
                if stop.startswith(buffer[-size:]):
                    keep = min(keep, len(buffer) - size)
                    break
        self._held = buffer[keep:]
        return buffer[:keep]

    def finish(self) -> str:
        """The held back rest, at the end of a text without a stop string."""
        rest, self._held = self._held, ""
        return rest
