"""A directory of recordings: what it holds, told without opening them, and the list of them as an application."""
