"""Measurements of Keystead, printed by ``make bench``; ratios within one run count, absolute figures do not."""
