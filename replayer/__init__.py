"""Re-execution: bit-for-bit replay, the instrumented twin, time travel and stops."""

__distribution__ = "reprise-wasm"
