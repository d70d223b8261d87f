"""What acts on the task, how it is judged, and the command line."""
