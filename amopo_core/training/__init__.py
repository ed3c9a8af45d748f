"""Training: the ranks of a run, what they write down, and how a run goes on."""
