"""Software TEEs that sign bit-accurate evidence under private roots, for tests, benches and the demo only.

Their evidence runs through the very code that judges real hardware. Their roots are trusted by explicit configuration
alone (`SnpAnchors.simulated` and its siblings), and every result that rests on one says so.
"""
