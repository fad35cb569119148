"""What is owed to the people in the data: what is held on them and why, erasure, access, retention, who read what."""
