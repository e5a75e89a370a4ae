"""A bundle on disk: a directory of files, named with their SHA-256 in ``manifest.json``.

Start at ``bundle.Bundle`` (open and check one), ``manifest.Manifest`` (its schema), ``staging.Staging`` (write one so
that a single rename makes it real) and ``staging.amend`` (change a finished one).

Never imports ``export`` or ``runtime``: how a bundle is made and how it is run are rooms of their own.
"""
