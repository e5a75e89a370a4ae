"""Textual's driver for a session in a browser, changed so that the program ends when its server is gone."""

from __future__ import annotations

import os

from textual.drivers.web_driver import WebDriver
from textual.messages import ExitApp

GRACE_S = 10.0


class ServedDriver(WebDriver):
    """A ``WebDriver`` that ends the application at the end of its input, which Textual's ignores."""

    def run_input_thread(self) -> None:
        """Read until there is nothing more to come."""
        super().run_input_thread()
        if self.exit_event.is_set():
            return
        self._app.post_message(ExitApp())  # with the conversation saved
        if not self.exit_event.wait(GRACE_S):
            os._exit(1)
