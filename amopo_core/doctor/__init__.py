"""What this machine can train with: each check says what it found and what to do about it."""
