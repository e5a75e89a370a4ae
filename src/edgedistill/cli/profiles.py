"""``edgedistill profiles``: the hardware profiles, and which one fits this machine."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from edgedistill.cli import console
from edgedistill.errors import EXIT_USAGE, ProfileError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

EXAMPLES = """\
examples:
  edgedistill profiles list
  edgedistill profiles show laptop-cpu > mine.toml      a copy with everything spelt out, to change
  edgedistill profiles validate mine.toml
  edgedistill profiles detect                           this machine, and the profile that fits it"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``profiles``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="names, where they come from, what they are for", allow_abbrev=False)
    showing = actions.add_parser("show", help="one profile with everything it inherits, as TOML", allow_abbrev=False)
    showing.add_argument("profile", metavar="PROFILE", help="name or path")
    checking = actions.add_parser("validate", help="check profile files", allow_abbrev=False)
    checking.add_argument("profiles", nargs="+", metavar="PROFILE", help="name or path")
    detecting = actions.add_parser("detect", help="measure this machine (two seconds)", allow_abbrev=False)
    for action in (listing, showing, checking, detecting):
        action.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    actions = {"list": _list, "show": _show, "validate": _validate, "detect": _detect}
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from edgedistill.profile.profile import list_profiles

    entries = list_profiles()
    if args.json:
        console.out_json([dataclasses.asdict(entry) for entry in entries])
        return 0
    rows = [
        (e.name, e.origin, f"broken: {e.error}" if e.error else e.description, e.verified_on or "not run on it yet")
        for e in entries
    ]
    console.out(console.table(("name", "origin", "for", "verified on"), rows, wrap=2))
    return 0


def _show(args: argparse.Namespace) -> int:
    from edgedistill.profile.profile import load_profile

    table = load_profile(args.profile).to_dict()
    if args.json:
        console.out_json(table)
    else:
        console.out(console.lines("\n".join(toml_lines(table)).strip()))
    return 0


def _validate(args: argparse.Namespace) -> int:
    from edgedistill.profile.profile import load_profile

    results: list[dict[str, Any]] = []
    for name in args.profiles:
        try:
            profile = load_profile(name)
        except ProfileError as error:
            results.append({"profile": name, "valid": False, "error": str(error)})
            console.problem(f"error: {error}")
        else:
            results.append({"profile": name, "valid": True, "name": profile.name})
            if not args.json:
                console.out(f"{name}: valid ({profile.name})")
    if args.json:
        console.out_json(results)
    return 0 if all(result["valid"] for result in results) else EXIT_USAGE


def _detect(args: argparse.Namespace) -> int:
    from edgedistill.profile.profile import list_profiles, load_profile
    from edgedistill.system import hardware

    found = hardware.detect()
    fits = hardware.fit(found, [load_profile(entry.path) for entry in list_profiles() if entry.error is None])
    best = fits[0] if fits and fits[0].fits else None
    if args.json:
        ranking = [{"profile": f.profile.name, "fits": f.fits, "reasons": list(f.reasons)} for f in fits]
        console.out_json(
            {"hardware": found.to_dict(), "profile": best.profile.name if best else None, "ranking": ranking}
        )
        return 0
    bandwidth = f"{found.bandwidth_gbs:.1f} GB/s" if found.bandwidth_gbs else "not measured: too little free memory"
    isa = ", ".join(found.isa) or ("none that a profile asks for" if found.isa_known else "unknown to this system")
    pairs = [
        ("CPU", found.cpu),
        ("cores", f"{found.physical_cores} physical, {found.logical_cores} logical"),
        ("instructions", f"{found.machine}: {isa}"),
        ("memory", f"{found.ram_bytes / hardware.GB:.1f} GB, {found.available_ram_bytes / hardware.GB:.1f} GB free"),
        ("bandwidth", f"{bandwidth} (each token reads every weight once: the ceiling of decoding)"),
        ("free disk", f"{found.free_disk_bytes / hardware.GB:.1f} GB"),
    ]
    console.out(console.fields(pairs))
    console.out()
    rows = [(f.profile.name, "yes" if f.fits else "no", "; ".join(f.reasons)) for f in fits]
    console.out(console.table(("profile", "fits", "why"), rows, wrap=2))
    console.out()
    if best is None:
        console.out("No profile fits this machine; copy the nearest and change it: edgedistill profiles show NAME")
    else:
        console.out(f"Best: {best.profile.name}")
        console.out(f"Try: edgedistill export tiny-reasoner --profile {best.profile.name} -o my-bundle")
    return 0


def toml_lines(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """A table of plain values, lists and tables as TOML; None, which TOML lacks, is left out."""
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    plain = {key: value for key, value in table.items() if key not in tables and value is not None}
    if prefix and plain:
        yield f"\n[{prefix}]"
    for key, value in plain.items():
        yield f"{key} = {_toml_value(value)}"
    for key, value in tables.items():
        yield from toml_lines(value, f"{prefix}.{key}" if prefix else key)


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        items = [_toml_value(entry) for entry in value]
        if any(isinstance(entry, dict) for entry in value):
            return "[\n" + "".join(f"  {item},\n" for item in items) + "]"
        return "[" + ", ".join(items) + "]"
    return json.dumps(value, ensure_ascii=False)
