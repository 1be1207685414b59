"""The events of a recording as a story: indexed, folded, filtered, searched, and each in full. Nothing here knows of a screen."""
