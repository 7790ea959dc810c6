"""minimize, and the rules as methods of SciPy's."""
