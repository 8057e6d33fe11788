"""The tools that avllm is measured beside, and how each is started."""
