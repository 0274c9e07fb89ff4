"""The actions of turns: what a turn asks and leaves open, and how the session goes on when it is answered."""
