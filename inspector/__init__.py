"""Looking at a recording: the terminal inspector and the reports."""

__distribution__ = "reprise-wasm"
