"""What the inspector consists of on the screen."""
