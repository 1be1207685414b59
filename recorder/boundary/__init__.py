"""The boundary of a guest: the engine profile, the WASI table and the interposers. Used by recording and by replay alike."""
