"""Files written into a guest's file system before the guest starts, where it gets no config drive."""
