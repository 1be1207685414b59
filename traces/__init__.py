"""What a recording is: events, journal, tables, seal, diff and export. Imports no other room."""

__distribution__ = "reprise-wasm"
