"""The leaderboard: records that were sent in, checked, ranked, and shown as tables and a page."""
