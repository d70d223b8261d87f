"""Commands about hands: draft, check, search of the grasp styles."""
