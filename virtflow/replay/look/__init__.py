"""Looking at a recording: what happened, why, and what is left. Everything here returns text or plain data."""
