"""Chemical formulas, whose indices are written with and without marks: H2O, H_2O, H₂O."""

from __future__ import annotations

import re

_ELEMENTS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag "
    "Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu"
)
ELEMENTS = frozenset(_ELEMENTS.split())
_MOLECULE = re.compile(r"((?:[A-Z][a-z]?(?:_?\(?\d{1,2}\)?)?)+)((?:\^\(?\d?[+-]\)?)?)")
_ATOMS = re.compile(r"([A-Z][a-z]?)_?\(?(\d*)")


def molecule_key(text: str) -> str | None:
    """A chemical formula (H2O, with or without marks of its indices); None where letters are no elements."""
    found = _MOLECULE.fullmatch(text.replace(" ", ""))
    parts = [] if found is None else _ATOMS.findall(found[1])
    if len(parts) < 2 or not any(count for _, count in parts) or any(name not in ELEMENTS for name, _ in parts):
        return None
    charge = re.sub(r"[()]", "", found[2]) if found is not None else ""
    return "".join(name + count for name, count in parts).casefold() + charge
