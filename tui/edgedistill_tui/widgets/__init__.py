"""Widgets: small, each draws one thing."""
