"""The source level of a module: lines, functions, variables and values, out of its DWARF debug information.

`replayer.source.debuginfo.open_source` is the way in. Reading takes pyelftools (the extra `inspect`), which is imported
when debug information is opened, not with this package.
"""
