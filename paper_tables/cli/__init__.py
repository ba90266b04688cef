"""The commands that this package adds to `bench`, one thin file each; they import what they do when they are called."""
