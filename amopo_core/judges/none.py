"""No judge: generations are not scored, and a policy is measured by how it ranks held-out pairs alone."""

JUDGE = None
