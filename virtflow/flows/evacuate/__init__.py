"""Evacuate an instance: make anew on another host what a dead one ran; and what that one cleans up when it is back."""
