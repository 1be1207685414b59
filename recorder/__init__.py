"""Running a guest and catching everything that crosses its boundary.

Nothing is imported here: replay loads `recorder.wasm` and `recorder.boundary` through this package and must not load a host.
"""

__distribution__ = "reprise-wasm"
