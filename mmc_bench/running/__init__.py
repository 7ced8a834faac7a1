"""Driving a plan, and reporting what happens to observers."""
