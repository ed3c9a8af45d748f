"""The embedded domain: a small world in which code, not taste, decides what is good in each dimension."""
