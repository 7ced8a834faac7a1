"""What plugins register, and how they are found, named and given their parameters."""
