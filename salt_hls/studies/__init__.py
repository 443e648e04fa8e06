"""Rivals and ablations: what each part of SAL-T is worth, in paired comparisons."""
