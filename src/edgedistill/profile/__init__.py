"""Hardware profiles: TOML files, read strictly into a frozen ``profile.Profile``.

Start at ``profile.load_profile``; ``files.read_profile_table`` merges a profile with those that it extends,
``schema.Form`` refuses unknown keys and names the nearest known one.

Never imports ``checkpoint``, ``export`` or ``runtime``.
"""
