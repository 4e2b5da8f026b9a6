"""Descriptions of data that others wrote, in Croissant and OpenLineage, and the drafts that are made from them."""
