"""What the UI keeps on disk: sessions, settings, known bundles, profiler runs. Nothing here draws."""
