"""Description of the robot for tf and viewers: frames, link poses, markers."""
